//! Fields of HF PEFT's that are `true`, `false`, or a name.

/// An enum of such values, each with how a file writes it.
macro_rules! flag_or_name {
    (
        $(#[$about:meta])*
        $name:ident {
            $(#[$doc_true:meta])* true => $true:ident,
            $(#[$doc_false:meta])* false => $false:ident,
            $($(#[$doc:meta])* $text:literal => $variant:ident,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub enum $name {
            $(#[$doc_true])*
            #[default]
            $true,
            $(#[$doc_false])*
            $false,
            $($(#[$doc])* $variant,)*
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                match self {
                    Self::$true => serializer.serialize_bool(true),
                    Self::$false => serializer.serialize_bool(false),
                    $(Self::$variant => serializer.serialize_str($text),)*
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                #[serde(untagged)]
                enum Value {
                    Flag(bool),
                    Name(String),
                }
                match Value::deserialize(deserializer)? {
                    Value::Flag(true) => Ok(Self::$true),
                    Value::Flag(false) => Ok(Self::$false),
                    Value::Name(name) => match name.to_ascii_lowercase().as_str() {
                        $($text => Ok(Self::$variant),)*
                        _ => {
                            let names: &[&str] = &["true", "false" $(, concat!("\"", $text, "\""))*];
                            let names = names.join(", ");
                            let reason = format!("unknown start {name:?}; there are {names}");
                            Err(serde::de::Error::custom(reason))
                        }
                    },
                }
            }
        }
    };
}

pub(crate) use flag_or_name;
