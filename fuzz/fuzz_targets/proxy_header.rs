//! Any bytes at the beginning of a connection: the parser of PROXY headers neither panics nor asks for what is not the
//! header's, and what it has read does not depend on what follows.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_server::proxy_protocol::{Parsed, parse};

fuzz_target!(|input: &[u8]| {
    match parse(input) {
        Ok(Parsed::Header(header, length)) => {
            assert!(length <= input.len());
            assert_eq!(parse(&input[..length]).expect("the same header"), Parsed::Header(header, length));
            for shorter in 0..length {
                match parse(&input[..shorter]).expect("it goes on to a header") {
                    Parsed::Incomplete(more) => assert!(more > 0 && shorter + more <= length),
                    Parsed::Header(..) => panic!("a header of {shorter} bytes within one of {length}"),
                }
            }
        }
        Ok(Parsed::Incomplete(more)) => assert!(more > 0 && more < 4096),
        Err(_) => {}
    }
});
