//! A growing record of a run, of which snapshots keep the beginning.

use std::sync::Arc;

/// What a `Vec` that only grows contained at some moment, in pieces that tapes share.
#[derive(Clone, Debug)]
pub struct Tape<T> {
    pieces: Vec<Arc<[T]>>,
    len: usize,
}

impl<T> Default for Tape<T> {
    fn default() -> Tape<T> {
        Tape {
            pieces: Vec::new(),
            len: 0,
        }
    }
}

impl<T: Clone> Tape<T> {
    /// Takes in what `items` got since the last time; returns a copy.
    pub fn mark(&mut self, items: &[T]) -> Tape<T> {
        if let Some(new) = items.get(self.len..).filter(|new| !new.is_empty()) {
            self.pieces.push(new.into());
            self.len = items.len();
        }
        self.clone()
    }

    /// Makes `items`, which this tape follows, what it was when `to` was marked.
    pub fn rewind(&mut self, items: &mut Vec<T>, to: &Tape<T>) {
        let pairs = self.pieces.iter().zip(&to.pieces);
        let common = pairs.take_while(|(a, b)| Arc::ptr_eq(a, b)).count();
        items.truncate(to.pieces[..common].iter().map(|piece| piece.len()).sum());
        for piece in &to.pieces[common..] {
            items.extend_from_slice(piece);
        }
        *self = to.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_mark_can_be_returned_to() {
        let (mut items, mut tape) = (Vec::new(), Tape::default());
        let mut marks = vec![(items.clone(), tape.mark(&items))];
        for branch in 0..20u32 {
            let (expected, mark) = marks[branch as usize * 7 % marks.len()].clone();
            // Not all of it was ever marked.
            items.extend([branch; 3]);
            tape.rewind(&mut items, &mark);
            assert_eq!(items, expected);
            items.extend([100 + branch, branch]);
            marks.push((items.clone(), tape.mark(&items)));
        }
    }
}
