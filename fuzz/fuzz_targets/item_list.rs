#![no_main]

libfuzzer_sys::fuzz_target!(init: item_affinity_fuzz::tell_own_panics(), |data: &[u8]| {
    item_affinity_fuzz::checks::item_list::check(data);
});
