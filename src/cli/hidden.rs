//! A line that is typed without being shown.
//!
//! Invariant: the terminal is silent before the question stands there and until the line has ended, whatever is typed
//! ahead; it gets its settings back however that ends, and no rest of a paste goes to the shell.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Longer than any value that the vault takes.
const MOST: usize = 64 * 1024;

/// What a pressed key does to the line so far.
#[derive(Debug, PartialEq, Eq)]
enum After {
    More,
    End,
    Interrupt,
}

/// Asks `question` at the terminal of the process and reads one line.
///
/// # Errors
/// When there is no terminal. Ctrl-C ends the process as it does elsewhere.
pub fn ask(question: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let silence = Silence::over(terminal.try_clone()?)?;
    terminal.write_all(question.as_bytes())?;
    // One allocation: a vector that grows would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MOST));
    let mut key = [0u8; 1];
    let after = loop {
        if terminal.read(&mut key)? == 0 {
            break After::End;
        }
        let [pressed] = key;
        match press(pressed, &mut line) {
            After::More => {}
            after => break after,
        }
    };
    drop(silence);
    terminal.write_all(b"\n")?;
    if after == After::Interrupt {
        kill_process(getpid(), Signal::INT)?;
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok(line)
}

fn press(key: u8, line: &mut Vec<u8>) -> After {
    match key {
        b'\n' | b'\r' => return After::End,
        // Ctrl-C and Ctrl-\.
        0x03 | 0x1c => return After::Interrupt,
        // Ctrl-D ends a line as it ends a file.
        0x04 => return After::End,
        // Backspace takes a whole character.
        0x08 | 0x7f => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
        // Ctrl-U: all of it.
        0x15 => line.clear(),
        key if line.len() < MOST => line.push(key),
        _ => {}
    }
    After::More
}

/// While it lives, the terminal shows no key and hands each one over at once.
struct Silence {
    terminal: File,
    before: Termios,
}

impl Silence {
    fn over(terminal: File) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
        // What was typed before was shown, so it is not taken for the value.
        tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> (Vec<u8>, After) {
        let mut line = Vec::new();
        for key in keys {
            match press(*key, &mut line) {
                After::More => {}
                after => return (line, after),
            }
        }
        (line, After::More)
    }

    #[test]
    fn keys_edit_the_line_as_at_a_shell() {
        for (keys, line, after) in [
            (&b"abc\nrest"[..], &b"abc"[..], After::End),
            (b"abc\r", b"abc", After::End),
            (b"abx\x7fc\n", b"abc", After::End),
            ("aé\x7fb\n".as_bytes(), b"ab", After::End),
            (b"\x7f\x7fa\n", b"a", After::End),
            (b"wrong\x15right\n", b"right", After::End),
            (b"abc\x04", b"abc", After::End),
            (b"abc\x03", b"abc", After::Interrupt),
        ] {
            assert_eq!(typed(keys), (line.to_vec(), after), "{keys:?}");
        }
        assert_eq!(typed(&vec![b'a'; MOST + 10]).0.len(), MOST);
    }
}
