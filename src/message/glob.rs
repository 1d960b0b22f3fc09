//! Names with a star in them.
//!
//! Invariant: `*` stands for any text, also none, and nothing else is special; the work is linear in practice and
//! bounded by both lengths.

/// Whether `pattern` fits the whole of `text`.
#[must_use]
pub fn globbed(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, text, expected) in [
            ("gpt-4", "gpt-4", true),
            ("gpt-4", "gpt-4o", false),
            ("gpt-*", "gpt-", true),
            ("gpt-*", "xgpt-4", false),
            ("*", "", true),
            ("*-mini", "gpt-4o-mini", true),
            ("claude-*-4*", "claude-sonnet-4-5", true),
            ("claude-*-4*", "claude-sonnet-3", false),
            ("a*a", "a", false),
            ("a**b", "ab", true),
            ("", "", true),
            ("", "x", false),
            ("*b*", "abc", true),
            ("claude-*", "claude-sonnet-*", true),
        ] {
            assert_eq!(globbed(pattern, text), expected, "{pattern} {text}");
        }
    }
}
