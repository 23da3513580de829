//! Memory whose amount a program decides: asked for before it is used, so that there being none is
//! the error of the request (`ENOMEM`) and not the server's end
//! ([decision 020](../../../docs/decisions/020-heaps.md)).

use abi::Errno;
use alloc::vec::Vec;

/// An empty list with room for `len` items. `ENOMEM`.
pub fn list<T>(len: usize) -> Result<Vec<T>, Errno> {
    let mut list = Vec::new();
    list.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    Ok(list)
}

/// A zeroed buffer. `ENOMEM`.
pub fn zeroed(len: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = list(len)?;
    buffer.resize(len, 0);
    Ok(buffer)
}

/// All of these items. `ENOMEM`.
pub fn collect<T>(items: impl Iterator<Item = T>) -> Result<Vec<T>, Errno> {
    let mut list = list(items.size_hint().0)?;
    for item in items {
        push(&mut list, item)?;
    }
    Ok(list)
}

/// Appends an item. `ENOMEM`.
pub fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), Errno> {
    list.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
    list.push(item);
    Ok(())
}

/// Appends items. `ENOMEM`, and nothing of them.
pub fn append<T: Copy>(list: &mut Vec<T>, items: &[T]) -> Result<(), Errno> {
    list.try_reserve(items.len()).map_err(|_| Errno::ENOMEM)?;
    list.extend_from_slice(items);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_there_and_what_is_not_is_an_error() {
        let mut numbers = collect((0..10u32).filter(|n| n % 2 == 0)).unwrap();
        push(&mut numbers, 10).unwrap();
        append(&mut numbers, &[12, 14]).unwrap();
        assert_eq!(numbers, [0, 2, 4, 6, 8, 10, 12, 14]);
        assert_eq!(zeroed(3).unwrap(), [0, 0, 0]);
        for len in [isize::MAX as usize, usize::MAX] {
            assert_eq!(zeroed(len), Err(Errno::ENOMEM));
            assert_eq!(list::<u64>(len), Err(Errno::ENOMEM));
        }
    }
}
