//! The rules of RFC 6455 and RFC 7692, one by one.
