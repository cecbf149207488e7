//! What kernels share: COM1, the debug-exit port, the entry point, which calls `main`, and the panic handler.
//!
//! The status is that of blog_os and bootimage: `Success` ends the guest with (16 << 1) | 1 = 33, a panic with 35.

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};
use core::panic::PanicInfo;

const COM1: u16 = 0x3f8;
const DEBUG_EXIT: u16 = 0xf4;

#[derive(Clone, Copy)]
pub enum ExitCode {
    Success = 16,
    Failed = 17,
}

pub struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| out8(COM1, byte));
        Ok(())
    }
}

fn out8(port: u16, value: u8) {
    // SAFETY: the two ports belong to devices that touch no memory of ours.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) }
}

pub fn exit(code: ExitCode) -> ! {
    out8(DEBUG_EXIT, code as u8);
    loop {
        // SAFETY: a halt changes nothing.
        unsafe { asm!("hlt", options(nomem, nostack)) }
    }
}

// kvmbox has set RSP; the call aligns the stack as functions expect it.
global_asm!(".globl _start", "_start: call {main}", main = sym crate::main);

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    let _ = writeln!(Serial, "PANIC: {info}");
    exit(ExitCode::Failed)
}
