//! The ABI's encoding of header lists and property paths.

/// The longest property path that is joined without an allocation, bytes; all of the filter's are shorter.
const SHORT_PATH: usize = 64;

/// Encodes headers: their number, the sizes of all names and values, then the bytes, each closed by a zero.
pub fn headers<'a>(headers: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Vec<u8> {
    let size = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes =
        Vec::with_capacity(4 + headers.clone().map(|(n, v)| n.len() + v.len() + 10).sum::<usize>());
    bytes.extend_from_slice(&u32::try_from(headers.clone().count()).unwrap_or(0).to_le_bytes());
    for (name, value) in headers.clone() {
        bytes.extend_from_slice(&size(name));
        bytes.extend_from_slice(&size(value));
    }
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Every value of the header `name` in such a list.
pub fn values(list: &[u8], name: &[u8]) -> Vec<Vec<u8>> {
    let number = |at: usize| -> Option<usize> {
        let bytes = list.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let mut values = Vec::new();
    let mut read = || -> Option<()> {
        let count = number(0)?;
        let mut at = count.checked_mul(8)?.checked_add(4)?;
        for nth in 0..count {
            let (name_size, value_size) = (number(4 + 8 * nth)?, number(8 + 8 * nth)?);
            let value_at = at.checked_add(name_size)?.checked_add(1)?;
            let end = value_at.checked_add(value_size)?;
            if list.get(at..at + name_size)? == name {
                values.push(list.get(value_at..end)?.to_vec());
            }
            at = end.checked_add(1)?;
        }
        Some(())
    };
    // A list that is cut short yields the values before the cut.
    let _complete = read();
    values
}

/// Calls `act` with the parts of a path, separated by zero bytes.
pub fn with_path<R>(path: &[&str], act: impl FnOnce(&[u8]) -> R) -> R {
    let mut short = [0; SHORT_PATH];
    let mut at = 0;
    for part in path {
        let begin = if at == 0 { 0 } else { at + 1 };
        let end = begin + part.len();
        match short.get_mut(begin..end) {
            Some(place) => place.copy_from_slice(part.as_bytes()),
            None => return act(path.join("\0").as_bytes()),
        }
        at = end;
    }
    act(short.get(..at).unwrap_or_default())
}
