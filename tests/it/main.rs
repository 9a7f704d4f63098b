//! Tests of the program against real servers.

fn main() {}
