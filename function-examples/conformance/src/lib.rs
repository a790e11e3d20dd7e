#![doc = include_str!("../README.md")]

use std::time::Duration;

use function_sdk::{Context, Error, LogLevel, PublishFlags, Request, Result, function};

#[function]
fn on_event(commands: &str, cx: &mut Context) -> Result {
    commands.split_terminator('\n').try_for_each(|line| obey(line, cx))
}

fn obey(line: &str, cx: &mut Context) -> Result {
    let (command, rest) = cut(line);
    match command {
        "event" => answer_event(cx),
        "config" => {
            let value = cx.config_opt::<String>(rest)?;
            answer_read(value.map(String::into_bytes), cx)
        }
        "secret" => {
            let value = cx.secret(rest)?;
            answer_read(value.map(String::into_bytes), cx)
        }
        "get" => {
            let value = cx.state_get(rest);
            answer_read(value, cx)
        }
        "put" => {
            let (key, value) = cut(rest);
            cx.state_put(key, value);
            Ok(())
        }
        "putfor" => {
            let (seconds, rest) = cut(rest);
            let (key, value) = cut(rest);
            let seconds = seconds.parse().map_err(|_| Error::new("the seconds are none"))?;
            cx.state_put_for(Duration::from_secs(seconds), key, value)
        }
        "putif" => {
            let (key, rest) = cut(rest);
            let (expected, value) = cut(rest);
            let expected = Some(expected.as_bytes()).filter(|expected| *expected != b"-");
            let put = cx.state_put_if(key, expected, value);
            cx.emit("answers", if put { "yes" } else { "no" })
        }
        "delete" => {
            cx.state_delete(rest);
            Ok(())
        }
        "keys" => {
            let keys: Vec<Vec<u8>> = cx.state_keys(rest).collect();
            keys.into_iter().try_for_each(|key| answer_read(Some(key), cx))
        }
        "attribute" => {
            let value = cx.event().attribute(rest).map(|value| value.as_bytes().to_vec());
            answer_read(value, cx)
        }
        "random" => {
            let bytes: [u8; 11] = cx.random();
            cx.emit("answers", &bytes[..])
        }
        "emit" => {
            let (priority, rest) = cut(rest);
            let (stream, body) = cut(rest);
            if priority == "1" { cx.emit_urgent(stream, body) } else { cx.emit(stream, body) }
        }
        "publish" => {
            let (flags, rest) = cut(rest);
            let (topic, payload) = cut(rest);
            let flags = flags.parse().ok().and_then(PublishFlags::from_i32);
            cx.publish_with(topic, payload, flags.ok_or_else(|| Error::new("the flags are none"))?)
        }
        "enqueue" => {
            let (delay_ms, rest) = cut(rest);
            let (queue, body) = cut(rest);
            let delay_ms = delay_ms.parse().map_err(|_| Error::new("the delay is none"))?;
            cx.enqueue_after(Duration::from_millis(delay_ms), queue, body)
        }
        "respond" => {
            let (status, rest) = cut(rest);
            let (name, rest) = cut(rest);
            let (value, body) = cut(rest);
            let status = status.parse().map_err(|_| Error::new("the status is none"))?;
            cx.respond_with(status, &[(name, value)], body)
        }
        "count" => {
            let (name, value) = cut(rest);
            cx.count(name, number(value)?)
        }
        "observe" => {
            let (name, value) = cut(rest);
            cx.observe(name, number(value)?)
        }
        "blobput" => {
            let (name, rest) = cut(rest);
            let (kind, body) = cut(rest);
            cx.blob_put(name, kind, body)
        }
        "blobdelete" => {
            cx.blob_delete(rest);
            Ok(())
        }
        "blobsize" => {
            let size = cx.blob_size(rest);
            answer_read(size.map(|size| size.to_string().into_bytes()), cx)
        }
        "blobget" => {
            let (offset, rest) = cut(rest);
            let (length, name) = cut(rest);
            let number = |text: &str| text.parse::<u32>().map_err(|_| Error::new("the number is none"));
            let (offset, mut room) = (number(offset)?, vec![0; number(length)? as usize]);
            let read = cx.blob_read(name, offset, &mut room);
            answer_read(read.map(|read| room[..read].to_vec()), cx)
        }
        "request" => {
            let (method, rest) = cut(rest);
            let (tag, rest) = cut(rest);
            let (url, body) = cut(rest);
            cx.request(Request::new(url).method(method).tag(tag).body(body)?);
            Ok(())
        }
        "log" => {
            match cut(rest) {
                ("0", text) => cx.error(text),
                ("1", text) => cx.warn(text),
                ("2", text) => cx.info(text),
                (_, text) => cx.debug(text),
            }
            Ok(())
        }
        "logwith" => {
            let (level, rest) = cut(rest);
            let (name, rest) = cut(rest);
            let (value, text) = cut(rest);
            let level = level.parse().ok().and_then(LogLevel::from_i32);
            cx.log_with(level.ok_or_else(|| Error::new("the level is none"))?, text, &[(name, value)]);
            Ok(())
        }
        "twin" => {
            let (name, value) = cut(rest);
            cx.report(name, value)
        }
        "fail" => Err(Error::new(rest)),
        _ => Err(Error::new(format_args!("unknown command: {line}"))),
    }
}

fn number(text: &str) -> Result<f64> {
    text.parse().map_err(|_| Error::new(format_args!("no number: {text}")))
}

/// What stands before the first space, and what behind it.
fn cut(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

fn answer_event(cx: &mut Context) -> Result {
    let event = cx.event();
    let (boot, sequence) = event.identity.map_or((0, 0), |identity| (identity.boot, identity.sequence));
    let text = format!(
        "kind={} time_us={} boot={boot} sequence={sequence} device={} topic={} payload={}",
        event.kind as u32,
        event.time_us,
        event.device,
        event.topic,
        event.payload.len()
    );
    cx.emit("answers", &text)
}

fn answer_read(value: Option<Vec<u8>>, cx: &mut Context) -> Result {
    match value {
        Some(value) => cx.emit("answers", &[b"=", &value[..]].concat()),
        None => cx.emit("answers", "-"),
    }
}
