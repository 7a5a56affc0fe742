//! Traits whose functions have defaults for methods, and none for what is made of methods.

/// Declares a trait with defaults, and a second one beside it with the same functions and no
/// defaults; every type that implements the second implements the first.
///
/// Methods implement the first, and leave out what they do not change. Composites and boxes
/// implement the second: a function that is added does not compile until each has answered for it.
macro_rules! open_and_closed {
    (
        $(#[$doc:meta])* trait $open:ident : $($bound:path),+;
        $(#[$closed_doc:meta])* trait $closed:ident;
        use $me:ident;
        $(
            $(#[$fn_doc:meta])*
            fn $name:ident $(<$lifetime:lifetime>)? [$($receiver:tt)*]
                ($($arg:ident : $type:ty),* $(,)?) $(-> $returned:ty)? $default:block
        )*
    ) => {
        $(#[$doc])*
        pub trait $open: $($bound +)+ {
            $(
                $(#[$fn_doc])*
                #[allow(unused_variables)]
                fn $name $(<$lifetime>)? ($($receiver)*, $($arg: $type),*) $(-> $returned)? $default
            )*
        }

        $(#[$closed_doc])*
        pub trait $closed: $($bound +)+ {
            $(
                #[doc = concat!("As in [`", stringify!($open), "`].")]
                fn $name $(<$lifetime>)? ($($receiver)*, $($arg: $type),*) $(-> $returned)?;
            )*
        }

        impl<T: $closed + ?Sized> $open for T {
            $(
                fn $name $(<$lifetime>)? ($($receiver)*, $($arg: $type),*) $(-> $returned)? {
                    $closed::$name($me, $($arg),*)
                }
            )*
        }
    };
}
pub(crate) use open_and_closed;
