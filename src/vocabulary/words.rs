//! The table of one list of words, and the macro that derives an enum from it.

use std::ffi::CStr;

/// One word of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Name of the Rust variant.
    pub variant: &'static str,
    /// Its number in the C ABI. Numbers are never reused.
    pub number: i32,
    /// How logs, JSON, metric labels and the wire spell it.
    pub name: &'static str,
    /// The name for C.
    pub c_name: &'static CStr,
    /// What it means, as Markdown of one paragraph.
    pub help: &'static str,
}

/// A list of words: one enum, in every language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// Name of the Rust enum.
    pub name: &'static str,
    /// What the list is, as Markdown of one paragraph.
    pub help: &'static str,
    /// The words, in the order of the table.
    pub words: &'static [Word],
}

/// The text, which ends with a NUL, as C reads it.
pub(crate) const fn terminated(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a name with a NUL"),
    }
}

impl Words {
    /// The word with that number.
    #[must_use]
    pub fn find(&self, number: i32) -> Option<&'static Word> {
        self.words.iter().find(|word| word.number == number)
    }
}

/// Defines enums whose variants have a number and a name. A list is written as
///
/// ```text
/// /// What the list is.
/// pub enum Name {
///     /// What the word means.
///     Variant = 1 "name",
/// }
/// ```
///
/// `Name (non_exhaustive)` has the usual meaning.
macro_rules! words {
    ($(
        $(#[doc = $doc:literal])+
        pub enum $name:ident $(($open:ident))? {
            $($(#[doc = $help:literal])+ $variant:ident = $number:literal $text:literal,)+
        }
    )+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $(#[$open])?
        pub enum $name {
            $($(#[doc = $help])+ $variant,)+
        }

        impl $name {
            /// The whole list.
            pub const WORDS: $crate::vocabulary::Words = $crate::vocabulary::Words {
                name: stringify!($name),
                help: concat!($($doc),+),
                words: &[$($crate::vocabulary::Word {
                    variant: stringify!($variant),
                    number: $number,
                    name: $text,
                    c_name: $crate::vocabulary::words::terminated(concat!($text, "\0")),
                    help: concat!($($help),+),
                }),+],
            };

            /// Every variant, in the order of the table.
            pub const ALL: [$name; Self::WORDS.words.len()] = [$($name::$variant),+];

            /// Its name: stable, the same in logs, JSON, metric labels and every language.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)+
                }
            }

            /// Its number in the C ABI: stable and never reused.
            #[must_use]
            pub const fn number(self) -> i32 {
                match self {
                    $($name::$variant => $number,)+
                }
            }

            /// Its line of the table.
            #[must_use]
            pub fn word(self) -> &'static $crate::vocabulary::Word {
                &Self::WORDS.words[self as usize]
            }

            /// The variant with that number in the C ABI.
            #[must_use]
            pub fn from_number(number: i32) -> Option<Self> {
                Self::ALL.into_iter().find(|word| word.number() == number)
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let found = Self::ALL.into_iter().find(|word| word.name() == text);
                found.ok_or_else(|| format!("is none of: {}", Self::ALL.map(Self::name).join(", ")))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    )+};
}
