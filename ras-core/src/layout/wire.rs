//! The declaration of wire structures.

/// The size of a member, by an access to it.
pub(crate) const fn size_of_member<S, M>(_: fn(&S) -> &M) -> usize {
    size_of::<M>()
}

/// The bits of a member of a structure.
macro_rules! bits {
    ($structure:ty, $member:ident) => {
        $crate::layout::Bits::of_bytes(
            core::mem::offset_of!($structure, $member),
            $crate::layout::size_of_member(|structure: &$structure| &structure.$member),
        )
    };
}
pub(crate) use bits;

/// Declares a wire structure, its length in bytes, and what is said of one that is too short. Each member has, in the order of the
/// specification's table:
///
/// ```text
/// member as name: Type ?7 = kind,   // `as`: the name that is shown, if it is another. `?`: its validation bit
///     view[8..16] ?9 = kind;        // another name for some of its bits
/// ```
///
/// Then: `min`, the length of its shortest form; `total`, the member with its length including parts; and the parts that follow it.
macro_rules! wire {
    (@name $member:ident) => { stringify!($member) };
    (@name $member:ident $name:ident) => { stringify!($name) };
    (@optional) => { None };
    (@optional $value:expr) => { Some($value) };
    (@or $default:literal) => { $default };
    (@or $default:literal $value:literal) => { $value };
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $structure:ident: $len:literal, $what:literal {
            $(
                $(#[$doc:meta])*
                $member:ident $(as $name:ident)?: $type:tt $(? $valid:literal)? = $kind:expr
                $(, $view:ident [$from:literal .. $to:literal] $(? $view_valid:literal)? = $view_kind:expr)*;
            )*
        }
        $(min = $min:literal;)?
        $(total = $total:ident;)?
        $(parts = [$($part:expr),* $(,)?];)?
    ) => {
        $(#[$attribute])*
        #[derive(
            Clone,
            Copy,
            Debug,
            PartialEq,
            Eq,
            zerocopy::FromBytes,
            zerocopy::IntoBytes,
            zerocopy::KnownLayout,
            zerocopy::Immutable,
            zerocopy::Unaligned,
        )]
        #[repr(C)]
        $visibility struct $structure {
            $( $(#[$doc])* $visibility $member: $type, )*
        }

        const _: () = assert!(size_of::<$structure>() == $len);

        impl $structure {
            /// What its bytes mean.
            pub(crate) const LAYOUT: &'static $crate::layout::Layout = &$crate::layout::Layout {
                what: $what,
                len: $len,
                min_len: $crate::layout::wire!(@or $len $($min)?),
                members: &[$(
                    $crate::layout::Member {
                        field: $crate::layout::Field {
                            name: $crate::layout::wire!(@name $member $($name)?),
                            bits: $crate::layout::bits!($structure, $member),
                            valid: $crate::layout::wire!(@optional $($valid)?),
                            kind: $kind,
                            hidden_if_zero: false,
                        },
                        views: &[$(
                            $crate::layout::Field {
                                name: stringify!($view),
                                bits: $crate::layout::Bits { first: $from, count: $to - $from },
                                valid: $crate::layout::wire!(@optional $($view_valid)?),
                                kind: $view_kind,
                                hidden_if_zero: true,
                            },
                        )*],
                    },
                )*],
                parts: &[$($($part),*)?],
                total: $crate::layout::wire!(@optional $($crate::layout::bits!($structure, $total))?),
            };
        }
    };
}
pub(crate) use wire;
