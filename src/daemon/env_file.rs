//! The format of `env-file=`: lines of `NAME=VALUE`, as in the files of systemd and docker.
//!
//! Empty lines and lines that begin with `#` are skipped, and so is an `export` in front. A value may
//! stand in single quotes (taken as it is) or double quotes (with `\"`, `\\`, `\$`, `` \` `` and
//! `\n`); nothing is expanded.

#![forbid(unsafe_code)]

/// A name and a value.
pub type Variable = (Vec<u8>, Vec<u8>);

/// A line that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1 on.
    pub number: usize,
    /// What is wrong.
    pub why: &'static str,
}

/// The lines of a file that say something.
pub fn lines(text: &[u8]) -> impl Iterator<Item = Result<Variable, BadLine>> {
    text.split(|&byte| byte == b'\n')
        .enumerate()
        .filter_map(|(index, line)| {
            let number = index + 1;
            parse(line)
                .map_err(|why| BadLine { number, why })
                .transpose()
        })
}

/// One line; nothing for an empty line or a comment.
fn parse(line: &[u8]) -> Result<Option<Variable>, &'static str> {
    let line = line.trim_ascii();
    if line.is_empty() || line[0] == b'#' {
        return Ok(None);
    }
    let line = line.strip_prefix(b"export ").unwrap_or(line);
    let at = line
        .iter()
        .position(|&byte| byte == b'=')
        .ok_or("there is no '='")?;
    let name = line[..at].trim_ascii();
    if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
        return Err("that is no name of a variable");
    }
    let value = line[at + 1..].trim_ascii();
    if name.contains(&0) || value.contains(&0) {
        return Err("there is a NUL in it");
    }
    let value = match value.first() {
        Some(b'\'') => match value[1..].strip_suffix(b"'") {
            Some(value) if !value.contains(&b'\'') => value.to_vec(),
            _ => return Err("the quote is not closed, or something follows it"),
        },
        Some(b'"') => {
            double_quoted(&value[1..]).ok_or("the quote is not closed, or something follows it")?
        }
        _ => value.to_vec(),
    };
    Ok(Some((name.to_vec(), value)))
}

/// As in a shell, without expansion.
fn double_quoted(text: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    let mut bytes = text.iter();
    loop {
        match bytes.next()? {
            b'"' => return bytes.as_slice().is_empty().then_some(value),
            b'\\' => match bytes.next()? {
                escaped @ (b'"' | b'\\' | b'$' | b'`') => value.push(*escaped),
                b'n' => value.push(b'\n'),
                other => value.extend_from_slice(&[b'\\', *other]),
            },
            byte => value.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &[u8], value: &[u8]) -> Result<Option<Variable>, &'static str> {
        Ok(Some((name.to_vec(), value.to_vec())))
    }

    #[test]
    fn lines_of_a_file() {
        assert_eq!(parse(b"  # note"), Ok(None));
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"A=b c \r"), pair(b"A", b"b c"));
        assert_eq!(parse(b"export A=1"), pair(b"A", b"1"));
        assert_eq!(
            parse(b"A = 'it is \"x\" $HOME'"),
            pair(b"A", b"it is \"x\" $HOME")
        );
        assert_eq!(parse(br#"A="a\"b\\c\nd\q""#), pair(b"A", b"a\"b\\c\nd\\q"));
        assert_eq!(parse(b"A="), pair(b"A", b""));
        assert_eq!(parse(b"A=''"), pair(b"A", b""));
        for bad in [
            &b"A"[..],
            b"=1",
            b"A B=1",
            b"A='x",
            b"A='",
            b"A='x'y'",
            b"A=\"x",
            b"A=\"x\"y",
            b"A=\0",
        ] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn bad_lines_have_numbers() {
        let all: Vec<_> = lines(b"A=1\n\n# x\nbad\nB=2").collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all[0], Ok((b"A".to_vec(), b"1".to_vec())));
        assert_eq!(all[1].as_ref().unwrap_err().number, 4);
        assert_eq!(all[2], Ok((b"B".to_vec(), b"2".to_vec())));
    }
}
