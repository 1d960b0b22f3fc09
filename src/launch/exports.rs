//! An environment as text that a shell, a tool or a container runtime reads.
//!
//! Invariant: a value is quoted so that it comes out byte for byte, and what a format cannot carry is an error,
//! never a changed value.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;

/// The form in which variables are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `export K='v'`, for `eval "$(..)"` in any POSIX shell.
    Sh,
    /// `set -gx K 'v'`, for `keyferry env .. | source`.
    Fish,
    /// One JSON object.
    Json,
    /// `K="v"`, for the usual dotenv readers.
    Dotenv,
    /// `K=v` taken literally, for `docker run --env-file`.
    Docker,
}

/// A variable that the format cannot carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// Not UTF-8.
    #[error("the value of {0} is not valid UTF-8, which this format cannot carry")]
    NotUtf8(String),
    /// A line break or another control character.
    #[error("the value of {0} holds a control character, which this format cannot carry")]
    Control(String),
}

/// Writes `set` and, where the format can say so, the removal of `unset`.
///
/// # Errors
/// [`ExportError`] when a value cannot be written unchanged.
pub fn write(format: Format, set: &[(String, OsString)], unset: &[OsString]) -> Result<String, ExportError> {
    let mut pairs = Vec::with_capacity(set.len());
    for (name, value) in set {
        let text = value.to_str().ok_or_else(|| ExportError::NotUtf8(name.clone()))?;
        if text.chars().any(char::is_control) {
            return Err(ExportError::Control(name.clone()));
        }
        pairs.push((name.as_str(), text));
    }
    let mut out = String::new();
    // A name that no shell accepts cannot be unset by one either, and must not reach an `eval`.
    for name in unset.iter().filter_map(|name| name.to_str()).filter(|name| is_variable(name)) {
        match format {
            Format::Sh => _ = writeln!(out, "unset {name}"),
            Format::Fish => _ = writeln!(out, "set -e {name}"),
            Format::Json | Format::Dotenv | Format::Docker => {}
        }
    }
    match format {
        Format::Sh => pairs.iter().for_each(|(name, value)| _ = writeln!(out, "export {name}={}", sh(value))),
        Format::Fish => pairs.iter().for_each(|(name, value)| _ = writeln!(out, "set -gx {name} {}", fish(value))),
        Format::Dotenv => pairs.iter().for_each(|(name, value)| _ = writeln!(out, "{name}={}", dotenv(value))),
        Format::Docker => pairs.iter().for_each(|(name, value)| _ = writeln!(out, "{name}={value}")),
        Format::Json => {
            let object: serde_json::Map<String, serde_json::Value> =
                pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
            _ = writeln!(out, "{:#}", serde_json::Value::Object(object));
        }
    }
    Ok(out)
}

/// The names in `unset` that `format` has no way to remove, for a message beside the exports.
#[must_use]
pub fn left_over(format: Format, unset: &[OsString]) -> Vec<String> {
    match format {
        Format::Sh | Format::Fish => Vec::new(),
        Format::Json | Format::Dotenv | Format::Docker => {
            unset.iter().map(|name| OsStr::to_string_lossy(name).into_owned()).collect()
        }
    }
}

/// Whether `name` is a variable's name as every shell takes it.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn sh(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn fish(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

/// Readers differ on escapes in double quotes, and agree on single quotes, so those come first.
fn dotenv(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@,+=%~".contains(c);
    if value.chars().all(plain) {
        value.to_owned()
    } else if value.contains('\'') {
        let escaped = value.replace('\\', r"\\").replace('"', r#"\""#).replace('$', r"\$").replace('`', r"\`");
        format!("\"{escaped}\"")
    } else {
        format!("'{value}'")
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Values that break naive quoting.
    const AWKWARD: &[&str] = &[
        "plain",
        "",
        "with space",
        "it's",
        "a\"b",
        "$HOME `id` $(id)",
        "back\\slash\\",
        "semi;colon & | > < # ! * ? [x] {y} ~",
        "ünïcödé",
        "trailing\\'",
        "-n",
    ];

    fn set() -> Vec<(String, OsString)> {
        AWKWARD.iter().enumerate().map(|(index, value)| (format!("K{index}"), (*value).into())).collect()
    }

    fn read_back(shell: &str, script: &str) -> Vec<u8> {
        let output = Command::new(shell).arg("-c").arg(script).env_clear().env("GONE", "x").output().unwrap();
        assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    #[test]
    fn a_shell_reads_back_every_value_byte_for_byte() {
        let text = write(Format::Sh, &set(), &["GONE".into(), "a;b".into()]).unwrap();
        assert!(!text.contains("a;b"), "a name that is no variable reached the text");
        for shell in ["sh", "bash", "dash", "zsh"] {
            if Command::new(shell).arg("-c").arg(":").output().is_err() {
                continue;
            }
            let print: String = (0..AWKWARD.len()).map(|index| format!("printf '%s\\0' \"$K{index}\"\n")).collect();
            let read = read_back(shell, &format!("{text}\n{print}printf '%s\\0' \"${{GONE-gone}}\""));
            let wanted: String = AWKWARD.iter().chain(&["gone"]).map(|value| format!("{value}\0")).collect();
            assert_eq!(String::from_utf8(read).unwrap(), wanted, "{shell}");
        }
    }

    #[test]
    fn fish_reads_back_every_value_byte_for_byte() {
        let text = write(Format::Fish, &set(), &["GONE".into()]).unwrap();
        assert!(text.contains(r"set -gx K6 'back\\slash\\'"), "{text}");
        assert!(text.contains(r"set -gx K3 'it\'s'"), "{text}");
        if Command::new("fish").arg("-c").arg("true").output().is_err() {
            return;
        }
        let print: String = (0..AWKWARD.len()).map(|index| format!("printf '%s\\0' $K{index}\n")).collect();
        let wanted: String = AWKWARD.iter().map(|value| format!("{value}\0")).collect();
        assert_eq!(String::from_utf8(read_back("fish", &format!("{text}\n{print}"))).unwrap(), wanted);
    }

    #[test]
    fn json_holds_the_same_values() {
        let text = write(Format::Json, &set(), &[]).unwrap();
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (index, value) in AWKWARD.iter().enumerate() {
            assert_eq!(object[format!("K{index}")], *value);
        }
    }

    #[test]
    fn dotenv_quotes_what_a_reader_would_expand_and_docker_nothing() {
        let one = |format, value: &str| write(format, &[("K".into(), value.into())], &[]).unwrap();
        let cases = [
            ("http://a:b@127.0.0.1:1", "K=http://a:b@127.0.0.1:1\n"),
            ("a b", "K='a b'\n"),
            ("$HOME", "K='$HOME'\n"),
            ("it's $1", "K=\"it's \\$1\"\n"),
        ];
        for (value, wanted) in cases {
            assert_eq!(one(Format::Dotenv, value), wanted);
            assert_eq!(one(Format::Docker, value), format!("K={value}\n"));
        }
    }

    #[test]
    fn refuses_what_a_format_cannot_carry() {
        use std::os::unix::ffi::OsStringExt;
        for format in [Format::Sh, Format::Fish, Format::Json, Format::Dotenv, Format::Docker] {
            let broken = [("K".to_owned(), OsString::from("a\nb"))];
            assert_eq!(write(format, &broken, &[]), Err(ExportError::Control("K".into())));
            let binary = [("K".to_owned(), OsString::from_vec(vec![0xff]))];
            assert_eq!(write(format, &binary, &[]), Err(ExportError::NotUtf8("K".into())));
        }
        assert_eq!(left_over(Format::Docker, &["GONE".into()]), ["GONE"]);
        assert!(left_over(Format::Sh, &["GONE".into()]).is_empty());
    }
}
