//! Structures of words, and their twins of cells.

/// Declares a structure of `u64` fields that crosses a boundary as a value, and beside it one with the same
/// fields and the same layout that its owner changes field by field through a shared reference.
#[macro_export]
macro_rules! words {
    (
        $(#[$doc:meta])*
        pub struct $name:ident, $cells:ident { $( $(#[$fdoc:meta])* pub $field:ident ),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes,
            zerocopy::Immutable, zerocopy::KnownLayout,
        )]
        #[repr(C)]
        pub struct $name { $( $(#[$fdoc])* pub $field: u64 ),* }

        #[doc = concat!("[`", stringify!($name), "`] with a cell for each field, in the same places.")]
        #[derive(Debug, Default)]
        #[repr(C)]
        #[allow(missing_docs)]
        pub struct $cells { $( $(#[$fdoc])* pub $field: core::cell::Cell<u64> ),* }

        impl $cells {
            /// All fields 0.
            pub const fn new() -> $cells {
                $cells { $( $field: core::cell::Cell::new(0) ),* }
            }

            /// The values.
            #[inline(always)]
            pub const fn get(&self) -> $name {
                $name { $( $field: self.$field.get() ),* }
            }

            /// Replaces all values.
            #[inline(always)]
            pub fn set(&self, value: $name) {
                $( self.$field.set(value.$field); )*
            }
        }
    };
}
