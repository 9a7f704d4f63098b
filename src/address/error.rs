//! Why a text is no address.

/// Why a text is no address. It names the part at fault and never shows what stands there: any part may be a piece of a
/// password that was not percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Another scheme, or no URL at all.
    #[error("must be a URL that begins with {expected}")]
    Scheme {
        /// What it begins with.
        expected: &'static str,
    },
    /// A line break, a tab or the like. URL parsers drop some of these silently.
    #[error("has a control character, such as a tab or a line break")]
    ControlCharacter,
    /// A character that begins another part of the URL.
    #[error("has {found} where none may be; in a user or a password write / ? # @ % as %2F %3F %23 %40 %25")]
    Stray {
        /// The name of the character.
        found: &'static str,
    },
    /// A `%` that encodes nothing.
    #[error("has a % in the {part} that is not followed by two hexadecimal digits; write the character % as %25")]
    Percent {
        /// The part of the address.
        part: String,
    },
    /// Bytes that are no text, or a zero byte, which ends a text for the servers.
    #[error("has a {part} that is not UTF-8 text once it is percent-decoded, or has a zero byte")]
    NotText {
        /// The part of the address.
        part: String,
    },
    /// More than the protocol has room for.
    #[error("has a {part} of more than {bytes_max} bytes")]
    TooLong {
        /// The part of the address.
        part: &'static str,
        /// How many there may be.
        bytes_max: usize,
    },
    /// No host at all. It does not mean this machine.
    #[error("must name a host")]
    NoHost,
    /// A host that is none.
    #[error("has a host, number {number}, that {problem}")]
    Host {
        /// Its place in the list, from 1.
        number: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A port that is none.
    #[error("has a port, of host number {number}, that is not a number from 1 to 65535")]
    Port {
        /// The host's place in the list, from 1.
        number: usize,
    },
    /// As many ports as hosts, or one for all.
    #[error("names another number of ports than of hosts")]
    PortCount,
    /// A user without a password, or the other way round.
    #[error("names a {named} and no {missing}")]
    Credentials {
        /// The part that is there.
        named: &'static str,
        /// The part that is missing.
        missing: &'static str,
    },
    /// A parameter that nobody knows. Its name is not shown: it may be a piece of a password.
    #[error("has a parameter, number {number} after the ?, that is unknown; known are {known}")]
    Unknown {
        /// Its place, from 1.
        number: usize,
        /// All that are known.
        known: String,
    },
    /// A parameter of other programs that this one does not have.
    #[error("has the parameter {name}, which is not supported; {instead}")]
    Unsupported {
        /// The name of the parameter.
        name: &'static str,
        /// What to write instead.
        instead: &'static str,
    },
    /// Something that is said in two places.
    #[error("names {name} twice")]
    Twice {
        /// The name of the parameter.
        name: &'static str,
    },
    /// A `+`, which stands for itself to some programs and for a blank to others.
    #[error("has a + in the parameter {name}; write %20 for a blank and %2B for a plus")]
    Plus {
        /// The name of the parameter.
        name: &'static str,
    },
    /// The value of a parameter is wrong.
    #[error("has a parameter {name} that {demand}")]
    Value {
        /// The parameter, or the environment variable that stands for it.
        name: &'static str,
        /// What it must be.
        demand: String,
    },
}
