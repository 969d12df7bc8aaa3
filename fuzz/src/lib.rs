//! The fuzz targets of item-affinity: `fuzz_targets/` drives the functions in `checks/` with libFuzzer.

pub mod checks;

/// A panic in a decoder of others is caught where it is called, and no finding; one in our own code is, caught or not.
///
/// libFuzzer would end the process for either.
pub fn tell_own_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let foreign = panic.location().is_some_and(|place| {
            let file = place.file();
            file.contains("/registry/src/") || file.starts_with("/rustc/") || file.contains("/library/")
        });
        if !foreign {
            default(panic);
        }
    }));
}
