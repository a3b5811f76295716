//! A copy of the filter whose VM can be ended from outside: a request with many headers traps. The filter itself has no
//! such code, so it is inserted into the bytes of its `proxy_on_request_headers`.

use testbed::anyhow::{Context, Result, bail, ensure};

/// A request with more headers than this ends the VM that handles it.
pub const HEADERS: u8 = 60;
const CALLBACK: &[u8] = b"proxy_on_request_headers";
/// The number of the import section (WebAssembly core specification, 5.5).
const IMPORTS: u8 = 2;
/// The number of the export section.
const EXPORTS: u8 = 7;
/// The number of the code section.
const CODE: u8 = 10;

/// The module with the trap inserted.
pub fn laid(module: &[u8]) -> Result<Vec<u8>> {
    ensure!(module.starts_with(b"\0asm\x01\0\0\0"), "no WebAssembly module");
    let (mut changed, mut rest) = (module[..8].to_vec(), Bytes(&module[8..]));
    let (mut imported, mut callback) = (0, None);
    while !rest.0.is_empty() {
        let (id, size) = (rest.byte()?, rest.number()?);
        let content = rest.take(size)?;
        let content = match id {
            IMPORTS => {
                imported = imported_functions(Bytes(content))?;
                content.to_vec()
            }
            EXPORTS => {
                callback = exported_function(Bytes(content))?;
                content.to_vec()
            }
            CODE => with_fuse(Bytes(content), callback.context("no such callback")? - imported)?,
            _ => content.to_vec(),
        };
        changed.push(id);
        changed.extend(leb(content.len()));
        changed.extend(content);
    }
    Ok(changed)
}

/// The number of imported functions, which come first in the numbering.
fn imported_functions(mut section: Bytes<'_>) -> Result<usize> {
    let mut functions = 0;
    for _ in 0..section.number()? {
        section.name()?;
        section.name()?;
        match section.byte()? {
            0 => {
                section.number()?;
                functions += 1;
            }
            kind => bail!("an import of kind {kind}: a filter has functions alone"),
        }
    }
    Ok(functions)
}

fn exported_function(mut section: Bytes<'_>) -> Result<Option<usize>> {
    for _ in 0..section.number()? {
        let (name, kind, index) = (section.name()?, section.byte()?, section.number()?);
        if kind == 0 && name == CALLBACK {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn with_fuse(mut section: Bytes<'_>, at: usize) -> Result<Vec<u8>> {
    let count = section.number()?;
    let mut changed = leb(count);
    for index in 0..count {
        let size = section.number()?;
        let body = section.take(size)?;
        if index != at {
            changed.extend(leb(size));
            changed.extend(body);
            continue;
        }
        let mut locals = Bytes(body);
        for _ in 0..locals.number()? {
            locals.number()?;
            locals.byte()?;
        }
        let head = body.len() - locals.0.len();
        // local.get 1 (the number of headers), i32.const, i32.gt_u, if, unreachable, end. The constant is below 64, so
        // its signed encoding is one byte.
        let fuse = [0x20, 1, 0x41, HEADERS, 0x4b, 0x04, 0x40, 0x00, 0x0b];
        let body = [&body[..head], &fuse, &body[head..]].concat();
        changed.extend(leb(body.len()));
        changed.extend(body);
    }
    Ok(changed)
}

/// A number in LEB128.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        bytes.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return bytes;
        }
    }
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("the module breaks off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<usize> {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            ensure!(shift < 32, "a number that is too long");
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
            shift += 7;
        }
    }

    fn name(&mut self) -> Result<&'a [u8]> {
        let size = self.number()?;
        self.take(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written() -> Result<()> {
        for number in [0, 1, 127, 128, 300, 1_000_000] {
            assert_eq!(Bytes(&leb(number)).number()?, number);
        }
        Ok(())
    }

    #[test]
    fn the_fuse_stands_before_the_callback_and_nothing_else_changes() -> Result<()> {
        // (func (import "e" "f")), (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) i32.const 0)
        let types = [1, 11, 2, 0x60, 0, 0, 0x60, 3, 0x7f, 0x7f, 0x7f, 1, 0x7f];
        let (import, function) = ([2, 7, 1, 1, b'e', 1, b'f', 0, 0], [3, 2, 1, 1]);
        let export = [&[7, 28, 1, 24], CALLBACK, &[0, 1]].concat();
        let code = [10, 6, 1, 4, 0, 0x41, 0, 0x0b];
        let before = [&types[..], &import, &function, &export].concat();
        let module = [b"\0asm\x01\0\0\0", &before[..], &code].concat();
        let fused = [10, 15, 1, 13, 0, 0x20, 1, 0x41, 60, 0x4b, 0x04, 0x40, 0x00, 0x0b, 0x41, 0, 0x0b];
        assert_eq!(laid(&module)?, [b"\0asm\x01\0\0\0", &before[..], &fused].concat());
        assert!(laid(b"\0asm").is_err() && laid(&module[..40]).is_err());
        Ok(())
    }
}
