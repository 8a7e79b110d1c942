//! A client that others wrote, over memory [10].

use std::io::{self, Read, Write};

use tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Utf8Bytes};

use super::*;

/// What the client reads and writes.
#[derive(Default)]
struct Memory {
    to_client: Vec<u8>,
    from_client: Vec<u8>,
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.to_client.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.to_client.len().min(buffer.len()).min(1000);
        buffer[..count].copy_from_slice(&self.to_client[..count]);
        self.to_client.drain(..count);
        Ok(count)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.from_client.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_client_gets_its_echo_and_its_close() {
    let config = Some(WebSocketConfig::default());
    let mut client = WebSocket::from_raw_socket(Memory::default(), Role::Client, config);
    let mut connection = plain();
    let mut events = Vec::new();
    let mut pass = |client: &mut WebSocket<Memory>| {
        let Memory {
            to_client,
            from_client,
        } = client.get_mut();
        connection.receive(from_client, to_client, &mut events);
        from_client.clear();
        for event in events.drain(..) {
            match event {
                Event::Text(text) => connection.send_text(&text, to_client),
                Event::Binary(bytes) => connection.send_binary(&bytes, to_client),
                _ => {}
            }
        }
        connection.is_closed()
    };
    for size in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
        let messages = [
            Message::Text("x".repeat(size).into()),
            Message::Binary(vec![0xff; size].into()),
        ];
        for message in messages {
            client.send(message.clone()).unwrap();
            assert!(!pass(&mut client));
            assert!(client.read().unwrap() == message);
        }
    }
    client.send(Message::Ping(vec![1, 2, 3].into())).unwrap();
    assert!(!pass(&mut client));
    assert_eq!(client.read().unwrap(), Message::Pong(vec![1, 2, 3].into()));
    let frame = tungstenite::protocol::CloseFrame {
        code: 3000.into(),
        reason: Utf8Bytes::from_static("bye"),
    };
    client.close(Some(frame.clone())).unwrap();
    assert!(pass(&mut client));
    assert_eq!(client.read().unwrap(), Message::Close(Some(frame)));
    let end = client.read().unwrap_err();
    assert!(
        matches!(end, Error::ConnectionClosed | Error::Io(_)),
        "{end:?}"
    );
}
