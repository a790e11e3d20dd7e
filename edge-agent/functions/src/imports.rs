//! The imports: how a call crosses the boundary. What it then does is in [`crate::host`].

use std::ops::Range;

use function_abi::{ABSENT, EXPORT_MEMORY, NAMESPACE};
use wasmi::errors::LinkerError;
use wasmi::{AsContextMut, Caller, Error, Linker, Memory, Store, Val};

use crate::extism;
use crate::fuel::{BYTES_PER_UNIT, PER_CALL};
use crate::host::{Answer, Host, Stop};
use crate::trap::TrapKind;

/// Every import that there is, all in [`NAMESPACE`]: its name, how many i32 it takes, and whether it answers one. Those
/// in [`WITH_NUMBER`] take an f64 after these.
pub const IMPORTS: [(&str, usize, bool); 23] = [
    ("config_get", 4, true),
    ("secret_get", 4, true),
    ("state_get", 4, true),
    ("state_next", 6, true),
    ("blob_size", 2, true),
    ("blob_get", 5, true),
    ("random_fill", 2, false),
    ("state_put", 4, false),
    ("state_put_ttl", 5, false),
    ("state_delete", 2, false),
    ("emit", 5, false),
    ("publish", 5, false),
    ("enqueue", 5, false),
    ("respond", 5, false),
    ("twin_report", 4, false),
    ("count", 2, false),
    ("observe", 2, false),
    ("blob_put", 6, false),
    ("blob_delete", 2, false),
    ("request", 6, false),
    ("log", 3, false),
    ("log_with", 5, false),
    ("fail", 2, false),
];

/// The imports whose last parameter is an f64.
pub const WITH_NUMBER: [&str; 2] = ["count", "observe"];

type Env<'a> = Caller<'a, Host>;

/// Defines all of [`IMPORTS`].
pub(crate) fn link(linker: &mut Linker<Host>) -> Result<(), LinkerError> {
    linker
        .func_wrap(NAMESPACE, "config_get", |mut env: Env<'_>, key: u32, key_len: u32, out: u32, out_cap: u32| {
            text_get(&mut env, "config_get", Host::config, (key, key_len), (out, out_cap)).map_err(Error::host)
        })?
        .func_wrap(NAMESPACE, "secret_get", |mut env: Env<'_>, key: u32, key_len: u32, out: u32, out_cap: u32| {
            text_get(&mut env, "secret_get", Host::secret, (key, key_len), (out, out_cap)).map_err(Error::host)
        })?
        .func_wrap(NAMESPACE, "state_get", |mut env: Env<'_>, key: u32, key_len: u32, out: u32, out_cap: u32| {
            state_get(&mut env, (key, key_len), (out, out_cap)).map_err(Error::host)
        })?
        .func_wrap(
            NAMESPACE,
            "state_next",
            |mut env: Env<'_>, prefix: u32, prefix_len: u32, after: u32, after_len: u32, out: u32, out_cap: u32| {
                let params = [("prefix", prefix, prefix_len), ("after", after, after_len), ("out", out, out_cap)];
                state_next(&mut env, params).map_err(Error::host)
            },
        )?
        .func_wrap(NAMESPACE, "blob_size", |mut env: Env<'_>, name: u32, name_len: u32| -> Result<i32, Error> {
            let size =
                |host: &mut Host, memory: &mut [u8], [name]: [Range<usize>; 1]| Err(host.blob_size(&memory[name]));
            with(&mut env, "blob_size", [("name", name, name_len)], size)
        })?
        .func_wrap(
            NAMESPACE,
            "blob_get",
            |mut env: Env<'_>, name: u32, name_len: u32, offset: u32, out: u32, out_cap: u32| -> Result<i32, Error> {
                blob_get(&mut env, (name, name_len), offset, (out, out_cap)).map_err(Error::host)
            },
        )?
        .func_wrap(NAMESPACE, "random_fill", |mut env: Env<'_>, out: u32, out_len: u32| {
            with(&mut env, "random_fill", [("out", out, out_len)], |host, memory, [out]| {
                host.random.fill(&mut memory[out]);
                Ok(())
            })
        })?
        .func_wrap(NAMESPACE, "state_put", |mut env: Env<'_>, key: u32, key_len: u32, value: u32, value_len: u32| {
            let params = [("key", key, key_len), ("value", value, value_len)];
            with(&mut env, "state_put", params, |host, memory, [key, value]| {
                host.state_put("state_put", &memory[key], &memory[value], None)
            })
        })?
        .func_wrap(
            NAMESPACE,
            "state_put_ttl",
            |mut env: Env<'_>, key: u32, key_len: u32, value: u32, value_len: u32, ttl_s: u32| {
                let params = [("key", key, key_len), ("value", value, value_len)];
                with(&mut env, "state_put_ttl", params, |host, memory, [key, value]| {
                    host.state_put("state_put_ttl", &memory[key], &memory[value], Some(ttl_s))
                })
            },
        )?
        .func_wrap(NAMESPACE, "state_delete", |mut env: Env<'_>, key: u32, key_len: u32| {
            with(&mut env, "state_delete", [("key", key, key_len)], |host, memory, [key]| {
                host.state_delete(&memory[key])
            })
        })?
        .func_wrap(
            NAMESPACE,
            "emit",
            |mut env: Env<'_>, stream: u32, stream_len: u32, body: u32, body_len: u32, priority: i32| {
                let params = [("stream", stream, stream_len), ("body", body, body_len)];
                with(&mut env, "emit", params, |host, memory, [stream, body]| {
                    host.emit(&memory[stream], &memory[body], priority)
                })
            },
        )?
        .func_wrap(
            NAMESPACE,
            "publish",
            |mut env: Env<'_>, topic: u32, topic_len: u32, payload: u32, payload_len: u32, flags: i32| {
                let params = [("topic", topic, topic_len), ("payload", payload, payload_len)];
                with(&mut env, "publish", params, |host, memory, [topic, payload]| {
                    host.publish(&memory[topic], &memory[payload], flags)
                })
            },
        )?
        .func_wrap(
            NAMESPACE,
            "enqueue",
            |mut env: Env<'_>, queue: u32, queue_len: u32, body: u32, body_len: u32, delay_ms: u32| {
                let params = [("queue", queue, queue_len), ("body", body, body_len)];
                with(&mut env, "enqueue", params, |host, memory, [queue, body]| {
                    host.enqueue(&memory[queue], &memory[body], delay_ms)
                })
            },
        )?
        .func_wrap(
            NAMESPACE,
            "respond",
            |mut env: Env<'_>, status: u32, headers: u32, headers_len: u32, body: u32, body_len: u32| {
                let params = [("headers", headers, headers_len), ("body", body, body_len)];
                with(&mut env, "respond", params, |host, memory, [headers, body]| {
                    host.respond(status, &memory[headers], &memory[body])
                })
            },
        )?
        .func_wrap(
            NAMESPACE,
            "twin_report",
            |mut env: Env<'_>, name: u32, name_len: u32, value: u32, value_len: u32| {
                let params = [("name", name, name_len), ("value", value, value_len)];
                with(&mut env, "twin_report", params, |host, memory, [name, value]| {
                    host.twin_report(&memory[name], &memory[value])
                })
            },
        )?
        .func_wrap(
            NAMESPACE,
            "blob_put",
            |mut env: Env<'_>, name: u32, name_len: u32, kind: u32, kind_len: u32, body: u32, body_len: u32| {
                let params = [("name", name, name_len), ("type", kind, kind_len), ("body", body, body_len)];
                with(&mut env, "blob_put", params, |host, memory, [name, kind, body]| {
                    host.blob_put(&memory[name], &memory[kind], &memory[body])
                })
            },
        )?
        .func_wrap(NAMESPACE, "blob_delete", |mut env: Env<'_>, name: u32, name_len: u32| {
            with(&mut env, "blob_delete", [("name", name, name_len)], |host, memory, [name]| {
                host.blob_delete(&memory[name])
            })
        })?
        .func_wrap(NAMESPACE, "count", |mut env: Env<'_>, name: u32, name_len: u32, value: f64| {
            with(&mut env, "count", [("name", name, name_len)], |host, memory, [name]| host.count(&memory[name], value))
        })?
        .func_wrap(NAMESPACE, "observe", |mut env: Env<'_>, name: u32, name_len: u32, value: f64| {
            with(&mut env, "observe", [("name", name, name_len)], |host, memory, [name]| {
                host.observe(&memory[name], value)
            })
        })?
        .func_wrap(
            NAMESPACE,
            "request",
            |mut env: Env<'_>, url: u32, url_len: u32, head: u32, head_len: u32, body: u32, body_len: u32| {
                let params = [("URL", url, url_len), ("head", head, head_len), ("body", body, body_len)];
                with(&mut env, "request", params, |host, memory, [url, head, body]| {
                    host.request(&memory[url], &memory[head], &memory[body])
                })
            },
        )?
        .func_wrap(NAMESPACE, "log", |mut env: Env<'_>, level: i32, text: u32, text_len: u32| {
            with(&mut env, "log", [("text", text, text_len)], |host, memory, [text]| {
                host.log("log", level, &memory[text], &[])
            })
        })?
        .func_wrap(
            NAMESPACE,
            "log_with",
            |mut env: Env<'_>, level: i32, text: u32, text_len: u32, fields: u32, fields_len: u32| {
                let params = [("text", text, text_len), ("fields", fields, fields_len)];
                with(&mut env, "log_with", params, |host, memory, [text, fields]| {
                    host.log("log_with", level, &memory[text], &memory[fields])
                })
            },
        )?
        .func_wrap(NAMESPACE, "fail", |mut env: Env<'_>, text: u32, text_len: u32| -> Result<(), Error> {
            with(&mut env, "fail", [("text", text, text_len)], |host, memory, [text]| Err(host.fail(&memory[text])))
        })?;
    Ok(())
}

/// A read of what does not change while the function is loaded.
fn text_get(
    env: &mut Env<'_>,
    import: &str,
    get: impl for<'h> FnOnce(&'h Host, &[u8]) -> Result<Option<&'h str>, Stop>,
    key: (u32, u32),
    out: (u32, u32),
) -> Result<i32, Stop> {
    let (memory, [key, out]) = ranges(env, import, [("key", key.0, key.1), ("out", out.0, out.1)])?;
    charge(&mut *env, PER_CALL + units(key.len()))?;
    let (bytes, host) = memory.data_and_store_mut(&mut *env);
    let value = get(host, &bytes[key])?.map(str::as_bytes);
    let copied = value.map_or(0, <[u8]>::len);
    let answer = answer(bytes, out, value)?;
    charge(env, units(copied))?;
    Ok(answer)
}

fn state_get(env: &mut Env<'_>, key: (u32, u32), out: (u32, u32)) -> Result<i32, Stop> {
    let (memory, [key, out]) = ranges(env, "state_get", [("key", key.0, key.1), ("out", out.0, out.1)])?;
    charge(&mut *env, PER_CALL + units(key.len()))?;
    let (bytes, host) = memory.data_and_store_mut(&mut *env);
    let value = host.state(&bytes[key], Answer::Memory(out.clone()))?;
    let copied = value.map_or(0, <[u8]>::len);
    let answer = answer(bytes, out, value)?;
    charge(env, units(copied))?;
    Ok(answer)
}

/// Always a question to the store.
fn state_next(env: &mut Env<'_>, params: [(&str, u32, u32); 3]) -> Result<i32, Stop> {
    let (memory, [prefix, after, out]) = ranges(env, "state_next", params)?;
    charge(&mut *env, PER_CALL + units(prefix.len() + after.len()))?;
    let (bytes, host) = memory.data_and_store_mut(&mut *env);
    Err(host.state_next(&bytes[prefix], &bytes[after], out))
}

/// Always a question to the store. Room is paid for when it is filled.
fn blob_get(env: &mut Env<'_>, name: (u32, u32), offset: u32, out: (u32, u32)) -> Result<i32, Stop> {
    let (memory, [name, out]) = ranges(env, "blob_get", [("name", name.0, name.1), ("out", out.0, out.1)])?;
    charge(&mut *env, PER_CALL + units(name.len()))?;
    let (bytes, host) = memory.data_and_store_mut(&mut *env);
    Err(host.blob_get(&bytes[name], offset, out))
}

/// Answers the read of the state that waits, with what the store said.
pub(crate) fn answer_state(store: &mut Store<Host>, wanted: Answer, value: Option<&[u8]>) -> Result<Val, Stop> {
    let Some(memory) = store.data().memory else {
        return Err(Stop::Trap(TrapKind::EngineFault, "no memory waits for a read of the state".to_owned()));
    };
    let out = match wanted {
        Answer::Memory(out) => out,
        Answer::Number => {
            let number = value.map(|value| value.try_into().map(i32::from_le_bytes));
            return number
                .transpose()
                .map(|number| Val::I32(number.unwrap_or(ABSENT)))
                .map_err(|_| Stop::Trap(TrapKind::EngineFault, "the answer to a read is no number".to_owned()));
        }
        Answer::Block => {
            let own = memory.data_size(&*store);
            return extism::imports::answer(store, own, value).map(|at| Val::I64(at as i64));
        }
    };
    let answer = answer(memory.data_mut(&mut *store), out, value)?;
    charge(store, units(value.map_or(0, <[u8]>::len)))?;
    Ok(Val::I32(answer))
}

/// The answer of a read: the length, and the value in `out` if it fits there.
fn answer(memory: &mut [u8], out: Range<usize>, value: Option<&[u8]>) -> Result<i32, Stop> {
    let Some(value) = value else { return Ok(ABSENT) };
    let length = i32::try_from(value.len())
        .map_err(|_| Stop::Trap(TrapKind::BadState, format!("a value of {} bytes cannot be read", value.len())))?;
    if let Some(out) = memory[out].get_mut(..value.len()) {
        out.copy_from_slice(value);
    }
    Ok(length)
}

/// Checks the parameters of an import that writes nothing to memory, charges for them, and does what it is for.
fn with<const N: usize, T>(
    env: &mut Env<'_>,
    import: &str,
    params: [(&str, u32, u32); N],
    act: impl FnOnce(&mut Host, &mut [u8], [Range<usize>; N]) -> Result<T, Stop>,
) -> Result<T, Error> {
    let mut run = || {
        let (memory, ranges) = ranges(env, import, params)?;
        charge(&mut *env, PER_CALL + units(ranges.iter().map(Range::len).sum()))?;
        Ok((memory, ranges))
    };
    let (memory, ranges) = run().map_err(Error::host::<Stop>)?;
    let (bytes, host) = memory.data_and_store_mut(env);
    act(host, bytes, ranges).map_err(Error::host)
}

/// The module's memory, which its start function uses before anybody has looked it up.
pub(crate) fn memory(env: &Env<'_>) -> Option<Memory> {
    env.data().memory.or_else(|| env.get_export(EXPORT_MEMORY)?.into_memory())
}

/// The function's memory, and where the parameters lie in it.
fn ranges<const N: usize>(
    env: &Env<'_>,
    import: &str,
    params: [(&str, u32, u32); N],
) -> Result<(Memory, [Range<usize>; N]), Stop> {
    let memory = memory(env)
        .ok_or_else(|| Stop::Trap(TrapKind::BadPointer, format!("{import}: called before there was a memory")))?;
    let size = memory.data_size(env);
    let mut ranges = [const { 0..0 }; N];
    for (range, (what, at, len)) in ranges.iter_mut().zip(params) {
        let end = u64::from(at) + u64::from(len);
        if end > size as u64 {
            return Err(Stop::Trap(
                TrapKind::BadPointer,
                format!("{import}: {what} is said to be the {len} bytes at {at}, the memory has {size} bytes"),
            ));
        }
        *range = at as usize..end as usize;
    }
    Ok((memory, ranges))
}

/// Units of fuel for `bytes` that the host checks or copies.
pub(crate) fn units(bytes: usize) -> u64 {
    bytes as u64 / BYTES_PER_UNIT
}

/// Takes fuel for work that the host does.
pub(crate) fn charge(mut ctx: impl AsContextMut<Data = Host>, units: u64) -> Result<(), Stop> {
    let mut ctx = ctx.as_context_mut();
    let stretch = ctx.get_fuel().map_err(|_| Stop::OutOfFuel)?;
    // Whoever works at one go pays at one go.
    let beyond = units.saturating_sub(stretch);
    ctx.data_mut().reserve = ctx.data().reserve.checked_sub(beyond).ok_or(Stop::OutOfFuel)?;
    ctx.set_fuel(stretch - (units - beyond)).map_err(|_| Stop::OutOfFuel)
}
