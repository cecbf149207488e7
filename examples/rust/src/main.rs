//! A kernel in Rust: an ELF64 that kvmbox enters in long mode, with a stack.

#![no_std]
#![no_main]

use core::fmt::Write;

use kernel::{exit, ExitCode, Serial};

mod kernel;

extern "C" fn main() -> ! {
    let squares: u32 = (1..=10u32).map(|n| n * n).sum();
    assert_eq!(squares, 385);
    let _ = writeln!(Serial, "Hello from Rust: the sum of ten squares is {squares}");
    exit(ExitCode::Success)
}
