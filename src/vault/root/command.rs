//! A root key that a command prints.
//!
//! Invariant: the command has a time and a length that it may take, and what it prints is in memory that is overwritten.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::super::error::VaultError;
use super::LIMIT;

/// Long enough for a person who is asked by the command.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs `command` in a shell and gives what it prints. Its messages go where ours go.
pub(super) fn output(command: &str) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    output_within(command, PATIENCE)
}

fn output_within(command: &str, patience: Duration) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let failed = |reason: String| VaultError::KeyCommand { reason };
    let shell = Command::new("/bin/sh")
        .args(["-c", command])
        // What is on our stdin may be a secret's value.
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = shell.map_err(|error| failed(format!("did not start: {error}")))?;
    let until = Instant::now() + patience;
    let (sender, receiver) = mpsc::sync_channel(1);
    let stdout = child.stdout.take();
    // Read beside the wait, so that a command that hangs is noticed.
    std::thread::spawn(move || {
        let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(LIMIT).unwrap_or_default() + 64));
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(LIMIT + 1).read_to_end(&mut bytes));
        let _ = sender.send(read.map(|_| bytes));
    });
    let Ok(read) = receiver.recv_timeout(patience) else {
        end(&mut child);
        return Err(failed(format!("gave no answer within {} seconds", patience.as_secs())));
    };
    let bytes = read.map_err(|error| failed(format!("could not be read: {error}")))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LIMIT {
        end(&mut child);
        return Err(failed(format!("printed more than {LIMIT} bytes")));
    }
    // It may have closed its output and gone on.
    let status = loop {
        match child.try_wait().map_err(|error| failed(format!("was lost: {error}")))? {
            Some(status) => break status,
            None if Instant::now() < until => std::thread::sleep(PAUSE),
            None => {
                end(&mut child);
                return Err(failed(format!("did not end within {} seconds", patience.as_secs())));
            }
        }
    };
    if !status.success() {
        return Err(failed(format!("ended with {status}")));
    }
    if bytes.trim_ascii().is_empty() {
        return Err(failed("printed nothing".to_owned()));
    }
    Ok(bytes)
}

/// Ends the command. Not what it started: a process group of its own could not ask a person at the terminal.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(command: &str) -> String {
        match output(command) {
            Err(VaultError::KeyCommand { reason }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_command_prints_is_taken_and_what_goes_wrong_is_said() {
        assert_eq!(output("printf 'a b\\n'").unwrap().as_slice(), b"a b\n");
        assert!(output("cat; echo x").is_ok(), "there is nothing on its stdin, and it does not wait for more");
        assert!(reason("echo x; exit 3").contains('3'));
        assert!(reason("true").contains("nothing"));
        assert!(reason("keyferry-no-such-command").contains("127"));
        assert!(reason("yes").contains("more than"));
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let error = output_within("exec sleep 1000", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("no answer"), "{error}");
        assert_eq!(error.exit_code(), 4);
        let error = output_within("echo x; exec >&- sleep 1000", Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }
}
