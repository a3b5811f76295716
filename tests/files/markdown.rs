//! README and docs, and the code blocks in them.

use std::path::{Path, PathBuf};

use testbed::anyhow::{Context, Result, ensure};
use testbed::tools;

/// A fenced block, and the words after its opening fence.
pub struct Block {
    /// File and line.
    pub place: String,
    /// The info string: the language, and what the block is.
    pub info: String,
    /// The contents.
    pub text: String,
}

/// All Markdown documents.
pub fn documents() -> Result<Vec<PathBuf>> {
    let root = tools::root();
    let mut documents = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    collect(&root.join("docs"), &mut documents)?;
    documents.sort();
    Ok(documents)
}

fn collect(folder: &Path, documents: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, documents)?;
        } else if path.extension().is_some_and(|ending| ending == "md") {
            documents.push(path);
        }
    }
    Ok(())
}

/// The fenced blocks of a document.
pub fn blocks_of(path: &Path) -> Result<Vec<Block>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (mut blocks, mut open) = (Vec::new(), None::<Block>);
    for (number, line) in (1..).zip(text.lines()) {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(info)) => {
                let place = format!("{}:{number}", path.display());
                open = Some(Block { place, info: info.trim().to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    ensure!(open.is_none(), "{}: a block without an end", path.display());
    Ok(blocks)
}

/// The fenced blocks of all documents.
pub fn blocks() -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    for path in documents()? {
        blocks.extend(blocks_of(&path)?);
    }
    Ok(blocks)
}
