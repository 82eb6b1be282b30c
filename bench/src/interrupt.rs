//! Ctrl-C: the first asks everything to stop and clean up, the second ends the process at once. A terminal that goes
//! counts as one.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// What the first Ctrl-C is answered with, since taking files away may take seconds.
const ANSWER: &[u8] =
    b"\nstopping, and removing what was made; once more stops at once and leaves it\n";

/// What shells expect of a process ended by SIGINT.
pub const EXIT_CODE: u8 = 130;

/// The run was stopped by the user.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

extern "C" fn on_signal(signal: libc::c_int) {
    // A terminal that goes sends SIGHUP twice, by the shell and by the kernel: nobody asked for haste.
    if ASKED.swap(true, Ordering::Relaxed) && signal != libc::SIGHUP {
        // SAFETY: `_exit` is async-signal-safe and does not return.
        unsafe { libc::_exit(libc::c_int::from(EXIT_CODE)) }
    }
    // SAFETY: it is this thread's own number.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: `write` is async-signal-safe and reads a constant.
    let told = unsafe { libc::write(libc::STDERR_FILENO, ANSWER.as_ptr().cast(), ANSWER.len()) };
    // A terminal that is gone is no reason to go on.
    let _ = told;
    // SAFETY: as above. What the signal interrupted reads the number it had set.
    unsafe { *libc::__errno_location() = errno };
}

/// Takes over SIGINT, SIGTERM and SIGHUP (the terminal is gone), for commands that have something to clean up. Without
/// SA_RESTART, so that a sleep in the kernel ends. `nohup` has SIGHUP ignored, and it stays so.
pub fn install() {
    // SAFETY: all zeros is a valid `sigaction`: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: as above.
        let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: `before` is writable, nothing is set.
        let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut before) };
        assert_eq!(asked, 0, "the signal exists");
        if signal == libc::SIGHUP && before.sa_sigaction == libc::SIG_IGN {
            continue;
        }
        // SAFETY: `action` is initialised; the handler only touches an atomic, writes, and calls `_exit`.
        let set = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        assert_eq!(set, 0, "these signals can be handled");
    }
}

/// Whether the user asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Goes on, unless the user asked to stop.
///
/// # Errors
/// [`Interrupted`].
pub fn check() -> Result<(), Interrupted> {
    if asked() { Err(Interrupted) } else { Ok(()) }
}
