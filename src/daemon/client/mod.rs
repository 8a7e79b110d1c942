//! The httpd child's side of the wire.
