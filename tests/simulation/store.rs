use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use mlua::{Function, Lua, MultiValue, Table, Value as LuaValue};
use tidegate_connections::redis_client::{RedisCommand, Value};

/// The contents of Redis: keys, their values, and when they expire by its own clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Data {
    keys: BTreeMap<String, (Held, Option<u64>)>,
}

#[derive(Clone, Debug)]
enum Held {
    Text(Vec<u8>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
}

/// A Redis in memory that runs the real scripts in Lua.
pub(crate) struct Store {
    shared: Arc<Mutex<Shared>>,
    lua: Lua,
    scripts: BTreeMap<&'static str, Function>,
}

#[derive(Default)]
struct Shared {
    data: Data,
    now: u64,
    run: u64,
}

/// The answer to a command.
enum Reply {
    Nil,
    Ok,
    Number(i64),
    Text(Vec<u8>),
    List(Vec<Vec<u8>>),
    /// A value for each field that was asked for, if there is one.
    Values(Vec<Option<Vec<u8>>>),
    /// All of a set, as the only page of it.
    Page(Vec<Vec<u8>>),
}

impl Store {
    pub(crate) fn new() -> Self {
        let (shared, lua) = (Arc::new(Mutex::new(Shared::default())), Lua::new());
        let (redis, store) = (lua.create_table().unwrap(), Arc::clone(&shared));
        let call = lua.create_function(move |lua, arguments: MultiValue| {
            let words: Vec<Vec<u8>> = arguments.iter().map(bytes_of).collect();
            let reply = store.lock().unwrap().run(&words);
            Ok(match reply {
                Reply::Nil => LuaValue::Boolean(false),
                Reply::Ok => LuaValue::Boolean(true),
                Reply::Number(number) => LuaValue::Number(number as f64),
                Reply::Text(text) => LuaValue::String(lua.create_string(text)?),
                Reply::List(list) => {
                    let texts: Vec<_> = list.iter().map(|text| lua.create_string(text)).collect::<Result<_, _>>()?;
                    LuaValue::Table(lua.create_sequence_from(texts)?)
                }
                Reply::Page(_) | Reply::Values(_) => panic!("a script pages"),
            })
        });
        redis.set("call", call.unwrap()).unwrap();
        lua.globals().set("redis", redis).unwrap();
        Store { shared, lua, scripts: BTreeMap::new() }
    }

    /// Sets the clock of Redis, in milliseconds.
    pub(crate) fn set_time(&self, now: u64) {
        let mut shared = self.shared.lock().unwrap();
        shared.now = now;
        shared.expire();
    }

    /// Returns the contents, for a snapshot.
    pub(crate) fn data(&self) -> Data {
        self.shared.lock().unwrap().data.clone()
    }

    /// It is started anew, with these data.
    pub(crate) fn restart(&self, data: Data) {
        let mut shared = self.shared.lock().unwrap();
        shared.data = data;
        shared.run += 1;
        shared.expire();
    }

    /// Somebody has emptied it under everybody's feet.
    pub(crate) fn flush(&self) {
        self.shared.lock().unwrap().data = Data::default();
    }

    pub(crate) fn execute(&mut self, call: &RedisCommand) -> Value {
        let Some(text) = call.script_text() else {
            let mut words = vec![call.name().as_bytes().to_vec()];
            words.extend(call.keys().iter().map(|key| key.as_bytes().to_vec()));
            words.extend(call.arguments().iter().cloned());
            return match self.shared.lock().unwrap().run(&words) {
                Reply::Nil => Value::Nil,
                Reply::Ok => Value::Okay,
                Reply::Number(number) => Value::Int(number),
                Reply::Text(text) => Value::BulkString(text),
                Reply::List(list) => array(list),
                Reply::Values(values) => {
                    Value::Array(values.into_iter().map(|value| value.map_or(Value::Nil, Value::BulkString)).collect())
                }
                Reply::Page(list) => Value::Array(vec![Value::BulkString(b"0".into()), array(list)]),
            };
        };
        let script = match self.scripts.get(text) {
            Some(script) => script.clone(),
            None => {
                let script = self.lua.load(text).into_function().unwrap();
                self.scripts.insert(text, script.clone());
                script
            }
        };
        let texts = |all: Vec<&[u8]>| {
            let all: Vec<_> = all.into_iter().map(|text| self.lua.create_string(text).unwrap()).collect();
            self.lua.create_sequence_from(all).unwrap()
        };
        let globals = self.lua.globals();
        globals.set("KEYS", texts(call.keys().iter().map(String::as_bytes).collect())).unwrap();
        globals.set("ARGV", texts(call.arguments().iter().map(Vec::as_slice).collect())).unwrap();
        value_of(&script.call::<LuaValue>(()).unwrap_or_else(|error| panic!("{error} in {text}")))
    }

    /// The text of a key.
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        match &self.shared.lock().unwrap().data.keys.get(key)?.0 {
            Held::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
            Held::Hash(_) => None,
        }
    }

    /// The fields of a hash, or the members of a set, with their values.
    pub(crate) fn fields(&self, key: &str) -> BTreeMap<String, String> {
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        match self.shared.lock().unwrap().data.keys.get(key) {
            Some((Held::Hash(hash), _)) => hash.iter().map(|(field, value)| (text(field), text(value))).collect(),
            _ => BTreeMap::new(),
        }
    }

    /// All keys, the fields of hashes, and whether they expire.
    pub(crate) fn contents(&self) -> Vec<(String, Vec<String>, bool)> {
        let shared = self.shared.lock().unwrap();
        let fields = |held: &Held| match held {
            Held::Text(_) => Vec::new(),
            Held::Hash(hash) => hash.keys().map(|field| String::from_utf8_lossy(field).into_owned()).collect(),
        };
        let keys = shared.data.keys.iter();
        keys.map(|(key, (held, expires))| (key.clone(), fields(held), expires.is_some())).collect()
    }
}

impl Shared {
    fn expire(&mut self) {
        let now = self.now;
        self.data.keys.retain(|_, (_, expires)| expires.is_none_or(|expires| now < expires));
    }

    fn hash(&mut self, key: &str) -> &mut BTreeMap<Vec<u8>, Vec<u8>> {
        let held = self.data.keys.entry(key.to_owned()).or_insert_with(|| (Held::Hash(BTreeMap::new()), None));
        match &mut held.0 {
            Held::Hash(hash) => hash,
            Held::Text(_) => panic!("{key} is no hash"),
        }
    }

    fn run(&mut self, words: &[Vec<u8>]) -> Reply {
        let text = |number: usize| String::from_utf8_lossy(&words[number]).into_owned();
        let number = |index: usize| text(index).parse::<f64>().unwrap() as u64;
        let name = text(0);
        if name == "TIME" {
            let seconds = (self.now / 1000).to_string();
            return Reply::List(vec![seconds.into(), (self.now % 1000 * 1000).to_string().into()]);
        }
        if name == "INFO" {
            return Reply::Text(format!("run_id:{}\r\nmaxmemory_policy:noeviction\r\n", self.run).into());
        }
        let key = text(1);
        let there = self.data.keys.contains_key(&key);
        match name.as_str() {
            "GET" => match self.data.keys.get(&key) {
                Some((Held::Text(text), _)) => Reply::Text(text.clone()),
                _ => Reply::Nil,
            },
            "SET" => {
                let expires = (words.len() > 3).then(|| self.now + number(4));
                self.data.keys.insert(key, (Held::Text(words[2].clone()), expires));
                Reply::Ok
            }
            "DEL" => {
                let all = words[1..].iter().map(|key| String::from_utf8_lossy(key).into_owned());
                Reply::Number(all.filter(|key| self.data.keys.remove(key).is_some()).count() as i64)
            }
            "EXISTS" => Reply::Number(there.into()),
            "PEXPIRE" | "PERSIST" => {
                let expires = (name == "PEXPIRE").then(|| self.now + number(2));
                if let Some(held) = self.data.keys.get_mut(&key) {
                    held.1 = expires;
                }
                Reply::Number(there.into())
            }
            "HSET" => {
                self.hash(&key).insert(words[2].clone(), words[3].clone());
                Reply::Number(1)
            }
            "HSETNX" => {
                self.hash(&key).entry(words[2].clone()).or_insert_with(|| words[3].clone());
                Reply::Number(1)
            }
            "HDEL" | "SREM" if there => {
                let hash = self.hash(&key);
                let gone = hash.remove(&words[2]).is_some();
                if hash.is_empty() {
                    self.data.keys.remove(&key);
                }
                Reply::Number(gone.into())
            }
            "HEXISTS" if there => Reply::Number(self.hash(&key).contains_key(&words[2]).into()),
            "HLEN" if there => Reply::Number(self.hash(&key).len() as i64),
            "HDEL" | "HEXISTS" | "HLEN" => Reply::Number(0),
            "HGET" if there => self.hash(&key).get(&words[2]).map_or(Reply::Nil, |value| Reply::Text(value.clone())),
            "HMGET" => {
                let values = words[2..].iter().map(|field| match self.data.keys.get(&key) {
                    Some((Held::Hash(hash), _)) => hash.get(field).cloned(),
                    _ => None,
                });
                Reply::Values(values.collect())
            }
            "SPOP" if there => {
                let hash = self.hash(&key);
                let popped: Vec<_> = hash.keys().take(number(2) as usize).cloned().collect();
                self.hash(&key).retain(|field, _| !popped.contains(field));
                if self.hash(&key).is_empty() {
                    self.data.keys.remove(&key);
                }
                Reply::List(popped)
            }
            "SSCAN" if there => Reply::Page(self.hash(&key).keys().cloned().collect()),
            "SSCAN" => Reply::Page(Vec::new()),
            "HKEYS" if there => Reply::List(self.hash(&key).keys().cloned().collect()),
            "HGETALL" if there => {
                Reply::List(self.hash(&key).iter().flat_map(|(field, value)| [field.clone(), value.clone()]).collect())
            }
            "HKEYS" | "HGETALL" | "SPOP" => Reply::List(Vec::new()),
            "HGET" => Reply::Nil,
            "SADD" => {
                // A set is held as a hash without values.
                self.hash(&key).insert(words[2].clone(), Vec::new());
                Reply::Number(1)
            }
            "SREM" => Reply::Number(0),
            other => panic!("Redis is asked for {other}"),
        }
    }
}

fn array(list: Vec<Vec<u8>>) -> Value {
    Value::Array(list.into_iter().map(Value::BulkString).collect())
}

fn bytes_of(value: &LuaValue) -> Vec<u8> {
    match value {
        LuaValue::String(text) => text.as_bytes().to_vec(),
        LuaValue::Integer(number) => number.to_string().into(),
        LuaValue::Number(number) => number.to_string().into(),
        other => panic!("a command with {other:?}"),
    }
}

fn value_of(value: &LuaValue) -> Value {
    let list = |table: &Table| table.sequence_values::<LuaValue>().map(|value| value_of(&value.unwrap())).collect();
    match value {
        LuaValue::String(text) => Value::BulkString(text.as_bytes().to_vec()),
        LuaValue::Integer(number) => Value::Int(*number),
        LuaValue::Number(number) => Value::Int(*number as i64),
        LuaValue::Boolean(true) => Value::Int(1),
        LuaValue::Table(table) => Value::Array(list(table)),
        _ => Value::Nil,
    }
}
