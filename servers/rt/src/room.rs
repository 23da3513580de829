//! Vectors of what may be much: memory for them is asked for, and its lack is `ENOMEM`. What a request
//! can make larger than 16 KiB goes through here or through `try_reserve` (docs/decisions/020-heaps.md).

use abi::Errno;
use alloc::vec::Vec;

/// An empty vector with room for `len`.
pub fn vector<T>(len: usize) -> Result<Vec<T>, Errno> {
    let mut vector = Vec::new();
    vector.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    Ok(vector)
}

/// Adds one.
pub fn push<T>(vector: &mut Vec<T>, item: T) -> Result<(), Errno> {
    vector.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
    vector.push(item);
    Ok(())
}

/// Adds a copy of several.
pub fn extend<T: Copy>(vector: &mut Vec<T>, items: &[T]) -> Result<(), Errno> {
    vector.try_reserve(items.len()).map_err(|_| Errno::ENOMEM)?;
    vector.extend_from_slice(items);
    Ok(())
}

/// All of them.
pub fn collect<T>(items: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>, Errno> {
    let mut all = vector(items.len())?;
    all.extend(items);
    Ok(all)
}

/// A zeroed buffer.
pub fn zeroed(len: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vector(len)?;
    buffer.resize(len, 0);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_there_and_what_is_not_is_an_error() {
        let mut numbers = collect([0u32, 2].into_iter()).unwrap();
        push(&mut numbers, 4).unwrap();
        extend(&mut numbers, &[6, 8]).unwrap();
        assert_eq!(numbers, [0, 2, 4, 6, 8]);
        assert_eq!(zeroed(3).unwrap(), [0, 0, 0]);
        for len in [isize::MAX as usize, usize::MAX] {
            assert_eq!(zeroed(len), Err(Errno::ENOMEM));
            assert_eq!(vector::<u64>(len), Err(Errno::ENOMEM));
        }
    }
}
