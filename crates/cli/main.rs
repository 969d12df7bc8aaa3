//! The program: everything is in the library beside it, where tests and fuzz targets reach it as well.

use std::process::ExitCode;

fn main() -> ExitCode {
    item_affinity::main()
}
