//! Why something failed, from the outermost reason to the innermost, each told once: an error that quotes its cause and names it
//! as its source, too, would say it twice.

/// The reasons in one line.
pub fn in_words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if words.contains(&cause) {
            continue;
        }
        if !words.is_empty() {
            words.push_str(": ");
        }
        words.push_str(&cause);
    }
    words
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::weights::file;

    #[test]
    fn a_reason_that_an_outer_one_quotes_is_told_once() {
        let unreadable = file::read(Path::new("/nowhere/policy")).unwrap_err();
        assert_eq!(
            in_words(&anyhow::Error::from(unreadable).context("parameter policy")),
            "parameter policy: cannot read '/nowhere/policy': No such file or directory (os error 2)"
        );
    }

    #[test]
    fn reasons_that_quote_nothing_are_all_told() {
        let error = anyhow::anyhow!("the disk is full")
            .context("writing")
            .context("at the end");
        assert_eq!(in_words(&error), "at the end: writing: the disk is full");
    }
}
