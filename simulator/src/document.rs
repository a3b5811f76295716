//! Tables in a document, between named marks, so that all of them can be refreshed at once.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A place in a document: `FILE#SECTION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    file: PathBuf,
    section: String,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        match text.rsplit_once('#') {
            Some((file, section)) if !file.is_empty() && !section.is_empty() => {
                Ok(Place { file: file.into(), section: section.into() })
            }
            _ => Err(format!("'{text}' is no FILE#SECTION")),
        }
    }
}

impl Place {
    /// Replaces the contents of the section by `text`.
    ///
    /// # Errors
    /// If the file cannot be read or written, or has no such marks.
    pub fn write(&self, text: &str) -> io::Result<()> {
        let whole = std::fs::read_to_string(&self.file)?;
        let replaced = replace(&whole, &self.section, text).ok_or_else(|| self.missing())?;
        std::fs::write(&self.file, replaced)
    }

    /// Checks that the section exists.
    ///
    /// # Errors
    /// If it does not; checked first because the run may take an hour.
    pub fn check(&self) -> io::Result<()> {
        let whole = std::fs::read_to_string(&self.file)?;
        replace(&whole, &self.section, "").map(|_| ()).ok_or_else(|| self.missing())
    }

    fn missing(&self) -> io::Error {
        let Place { file, section } = self;
        io::Error::other(format!("{}: no <!-- {section} --> … <!-- /{section} -->", path(file)))
    }
}

fn path(file: &Path) -> String {
    file.display().to_string()
}

fn replace(whole: &str, section: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {section} -->\n"), format!("<!-- /{section} -->"));
    let (before, rest) = whole.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_stands_between_the_marks_and_nothing_else() {
        let whole = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n";
        let once = replace(whole, "x", "new\n").unwrap();
        assert_eq!(once, "a\n<!-- x -->\n\nnew\n\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n");
        assert_eq!(replace(&once, "x", "new").unwrap(), once);
        assert_eq!(replace(whole, "z", "new"), None);
    }

    #[test]
    fn a_place_is_a_file_and_a_section() {
        let place: Place = "docs/a.md#peers".parse().unwrap();
        assert_eq!(place, Place { file: "docs/a.md".into(), section: "peers".into() });
        assert!("docs/a.md".parse::<Place>().is_err() && "#x".parse::<Place>().is_err());
    }
}
