//! The fuzz targets of item-affinity: `fuzz_targets/` drives the functions in `checks/` with libFuzzer.

pub mod checks;

/// Ends the process for a panic of our own code alone, caught or not: libFuzzer would for any.
pub fn tell_own_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|place| checks::is_foreign(place.file())) {
            default(panic);
        }
    }));
}
