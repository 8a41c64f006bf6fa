//! A reader of Python pickles that runs nothing.
//!
//! A pickle is a program for a small stack machine. This one knows plain values, containers and the few
//! functions by which PyTorch rebuilds tensors; whatever else a pickle calls becomes an opaque object that
//! remembers the function's name. Values lie in one list and refer to each other by index, so that neither
//! depth nor cycles nor sharing cost more than the pickle's own length.
//!
//! Sources: CPython's pickletools.py for the instructions, PyTorch's serialization.py and _utils.py.

use std::collections::HashMap;

use super::ElementType;

/// The longest pickle that is read. Those of real checkpoints are a few MB: their tensors lie elsewhere.
pub(super) const MAX_LENGTH: usize = 64 << 20;
/// The most values that a pickle may make.
const MAX_VALUES: usize = 8 << 20;
/// The most axes of a tensor.
const MAX_AXES: usize = 8;
/// The longest name of a class or function: names may be put together from remembered parts, again and again.
const MAX_NAME: usize = 1024;

/// A value, by its index.
pub(super) type Id = u32;

/// What a pickle makes.
#[derive(Debug)]
pub(super) enum Value {
    Int(i64),
    Text(Box<str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, `module.name`; never looked up.
    Global(Box<str>),
    /// A tensor's elements, somewhere else in the file.
    Storage(StorageRef),
    Tensor(TensorRef),
    /// What an unknown function, the [`Value::Global`] named here, would have made.
    Opaque(Id),
    /// A value that says nothing about tensors: None, a number, bytes, a set.
    Other,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct StorageRef {
    /// The [`Value::Global`] that says the type of the elements.
    pub class: Id,
    /// The [`Value::Text`] that names it.
    pub key: Id,
    /// Elements.
    pub length: u64,
}

#[derive(Debug)]
pub(super) struct TensorRef {
    /// A [`Value::Storage`].
    pub storage: Id,
    /// In elements, as the strides.
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// A pickle that has been read.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    /// The value that it is about.
    pub root: Id,
    /// How many bytes it takes.
    pub length: usize,
}

impl Pickle {
    /// Reads the pickle at the start of `bytes`.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut machine = Machine {
            bytes,
            at: 0,
            // The first value is what every opaque object without a known function refers to.
            values: vec![Value::Global("an unknown function".into())],
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        };
        let root = machine.run().map_err(|what| format!("its pickle, byte {}: {what}", machine.at))?;
        Ok(Self { values: machine.values, root, length: machine.at })
    }

    pub fn get(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Key, number of elements and bytes an element of every storage of a known type.
    pub fn storages(&self) -> impl Iterator<Item = (&str, (u64, u64))> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => {
                let size = self.element(storage).size()?;
                Some((self.text(storage.key)?, (storage.length, size as u64)))
            }
            _ => None,
        })
    }

    /// The texts of a pickled list of them.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let items: &[Id] = match self.get(self.root) {
            Value::List(items) => items,
            _ => &[],
        };
        items.iter().filter_map(|id| self.text(*id))
    }

    /// The type of a storage's elements.
    pub fn element(&self, storage: &StorageRef) -> ElementType {
        element_type(self.name(storage.class))
    }

    /// The name of the function `id`, a [`Value::Global`].
    pub fn name(&self, id: Id) -> &str {
        match self.get(id) {
            Value::Global(name) => name,
            _ => "an unknown function",
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Where on the stack each open mark is.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Items of dictionaries that were made from a list, which may be used more than once.
    copied: usize,
}

type Result<T, E = String> = std::result::Result<T, E>;

impl<'a> Machine<'a> {
    /// Runs to the end and returns what is on top of the stack. Instructions go by their letters in
    /// pickletools.py.
    fn run(&mut self) -> Result<Id> {
        loop {
            let op = self.take(1)?[0];
            match op {
                b'.' => return self.pop(),
                // PROTO, FRAME: nothing hangs on them.
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),

                // Marks and the stack itself.
                b'(' => self.marks.push(self.stack.len()),
                b'0' if self.stack.len() == self.floor() => drop(self.pop_mark()?),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_mark()?),
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }

                // Numbers, None and booleans.
                b'N' | 0x88 | 0x89 => self.push(Value::Other)?,
                b'J' => {
                    let n = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                b'K' => {
                    let n = self.take(1)?[0];
                    self.push(Value::Int(n.into()))?;
                }
                b'M' => {
                    let n = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                0x8a => {
                    let n = self.counted::<1>()?;
                    self.push(long(n))?;
                }
                0x8b => {
                    let n = self.counted::<4>()?;
                    self.push(long(n))?;
                }
                b'I' | b'L' => {
                    let line = self.line()?;
                    let digits = line.strip_suffix(b"L").unwrap_or(line);
                    let n = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
                    self.push(n.map_or(Value::Other, Value::Int))?;
                }
                b'F' => {
                    self.line()?;
                    self.push(Value::Other)?;
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Value::Other)?;
                }

                // Text; Python 2's strings are text as well.
                b'X' | b'T' => {
                    let text = self.counted::<4>()?;
                    self.push_text(text)?;
                }
                0x8c | b'U' => {
                    let text = self.counted::<1>()?;
                    self.push_text(text)?;
                }
                0x8d => {
                    let text = self.counted::<8>()?;
                    self.push_text(text)?;
                }
                b'V' => {
                    let text = self.line()?;
                    self.push_text(text)?;
                }
                b'S' => {
                    let text = self.line()?;
                    let quoted = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
                    self.push_text(quoted)?;
                }

                // Bytes.
                b'C' => self.skip_counted::<1>()?,
                b'B' => self.skip_counted::<4>()?,
                0x8e | 0x96 => self.skip_counted::<8>()?,

                // Containers.
                b']' => self.push(Value::List(Vec::new()))?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b')' => self.push(Value::Tuple(Vec::new()))?,
                0x8f => self.push(Value::Other)?,
                b'l' => {
                    let items = self.pop_mark()?;
                    self.push(Value::List(items))?;
                }
                b't' => {
                    let items = self.pop_mark()?;
                    self.push(Value::Tuple(items))?;
                }
                0x85..=0x87 => {
                    let items = self.pop_many(usize::from(op - 0x84))?;
                    self.push(Value::Tuple(items))?;
                }
                b'd' => {
                    let items = self.pop_mark()?;
                    self.push(Value::Dict(pairs(&items)?))?;
                }
                0x91 => {
                    self.pop_mark()?;
                    self.push(Value::Other)?;
                }
                b'a' => {
                    let items = self.pop_many(1)?;
                    self.append(&items)?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(&items)?;
                }
                b's' => {
                    let items = self.pop_many(2)?;
                    self.set_items(&items)?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set_items(&items)?;
                }
                0x90 => drop(self.pop_mark()?),

                // The memo.
                b'p' | b'g' => {
                    let line = self.line()?;
                    let index = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
                    let index = index.ok_or("an index that is no number")?;
                    if op == b'p' { self.remember(index)? } else { self.recall(index)? }
                }
                b'q' => {
                    let index = self.take(1)?[0].into();
                    self.remember(index)?;
                }
                b'r' => {
                    let index = u32::from_le_bytes(self.array()?).into();
                    self.remember(index)?;
                }
                0x94 => self.remember(self.memo.len() as u64)?,
                b'h' => {
                    let index = self.take(1)?[0].into();
                    self.recall(index)?;
                }
                b'j' => {
                    let index = u32::from_le_bytes(self.array()?).into();
                    self.recall(index)?;
                }

                // Classes and functions, and what they would make.
                b'c' => {
                    let name = self.global_lines()?;
                    self.push(Value::Global(name))?;
                }
                0x93 => {
                    let names = self.pop_many(2)?;
                    let name = match (self.get(names[0]), self.get(names[1])) {
                        (Value::Text(module), Value::Text(name)) => global(module, name)?,
                        _ => return Err("a global whose name is no text".into()),
                    };
                    self.push(Value::Global(name))?;
                }
                b'R' | 0x81 => {
                    let [callable, args] = self.pop_array()?;
                    self.call(callable, args)?;
                }
                0x92 => {
                    let [callable, args, _keywords] = self.pop_array()?;
                    self.call(callable, args)?;
                }
                b'i' => {
                    let name = self.global_lines()?;
                    let args = self.pop_mark()?;
                    let (callable, args) = (self.add(Value::Global(name))?, self.add(Value::Tuple(args))?);
                    self.call(callable, args)?;
                }
                b'o' => {
                    let mut items = self.pop_mark()?;
                    if items.is_empty() {
                        return Err("an object without a class".into());
                    }
                    let callable = items.remove(0);
                    let args = self.add(Value::Tuple(items))?;
                    self.call(callable, args)?;
                }
                // BUILD gives an object its attributes; no object here has any.
                b'b' => drop(self.pop()?),
                b'Q' => {
                    let id = self.pop()?;
                    self.persistent(id)?;
                }
                b'P' => {
                    self.line()?;
                    self.push(Value::Opaque(0))?;
                }
                0x82 => self.extension(1)?,
                0x83 => self.extension(2)?,
                0x84 => self.extension(4)?,
                other => return Err(format!("an unknown instruction {other:#04x}")),
            }
        }
    }

    fn get(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    // Reading.

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len()).ok_or("it ends too early")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| "it ends too early".into())
    }

    /// Bytes after their number, itself a little-endian number of `N` bytes.
    fn counted<const N: usize>(&mut self) -> Result<&'a [u8]> {
        let mut number = [0; 8];
        number[..N].copy_from_slice(&self.array::<N>()?);
        let number = usize::try_from(u64::from_le_bytes(number)).map_err(|_| "it ends too early")?;
        self.take(number)
    }

    fn skip_counted<const N: usize>(&mut self) -> Result<()> {
        self.counted::<N>()?;
        self.push(Value::Other)
    }

    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|b| *b == b'\n').ok_or("it ends too early")?;
        self.take(end + 1).map(|line| &line[..end])
    }

    fn global_lines(&mut self) -> Result<Box<str>> {
        let (module, name) = (self.line()?, self.line()?);
        global(&String::from_utf8_lossy(module), &String::from_utf8_lossy(name))
    }

    // The stack.

    fn add(&mut self, value: Value) -> Result<Id> {
        if self.values.len() >= MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        self.values.push(value);
        Ok((self.values.len() - 1) as Id)
    }

    fn push(&mut self, value: Value) -> Result<()> {
        let id = self.add(value)?;
        self.stack.push(id);
        Ok(())
    }

    fn push_text(&mut self, text: &[u8]) -> Result<()> {
        self.push(Value::Text(String::from_utf8_lossy(text).into()))
    }

    /// What lies above the last mark may be used, what lies below may not.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id> {
        self.stack[self.floor()..].last().copied().ok_or_else(|| "nothing on the stack".into())
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_many(&mut self, n: usize) -> Result<Vec<Id>> {
        let start = self.stack.len().checked_sub(n).filter(|start| *start >= self.floor());
        Ok(self.stack.split_off(start.ok_or("too little on the stack")?))
    }

    fn pop_array<const N: usize>(&mut self) -> Result<[Id; N]> {
        self.pop_many(N)?.try_into().map_err(|_| "too little on the stack".into())
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or("no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn remember(&mut self, index: u64) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Result<()> {
        let id = *self.memo.get(&index).ok_or_else(|| format!("nothing was remembered as {index}"))?;
        self.stack.push(id);
        Ok(())
    }

    // Containers. An opaque object may be a subclass of list or dict: what it is given is dropped.

    fn append(&mut self, items: &[Id]) -> Result<()> {
        let list = self.top()? as usize;
        match &mut self.values[list] {
            Value::List(list) => list.extend(items),
            Value::Opaque(_) | Value::Other => {}
            _ => return Err("items for something that is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        let dict = self.top()? as usize;
        let items = pairs(items)?;
        match &mut self.values[dict] {
            Value::Dict(dict) => dict.extend(items),
            Value::Opaque(_) | Value::Other => {}
            _ => return Err("items for something that is no dictionary".into()),
        }
        Ok(())
    }

    // Objects.

    fn extension(&mut self, bytes: usize) -> Result<()> {
        self.take(bytes)?;
        self.push(Value::Opaque(0))
    }

    /// Pushes what PyTorch's own rebuilding functions make, or an opaque object.
    fn call(&mut self, callable: Id, args: Id) -> Result<()> {
        let args: &[Id] = match self.get(args) {
            Value::Tuple(args) => args,
            _ => &[],
        };
        let name = match self.get(callable) {
            Value::Global(name) => &**name,
            Value::Opaque(function) => {
                let function = *function;
                return self.push(Value::Opaque(function));
            }
            _ => return self.push(Value::Opaque(0)),
        };
        let value = match (name, args) {
            ("torch._tensor._rebuild_from_type_v2", &[function, _, args, ..]) => {
                // Once: what it wraps is a tensor or a parameter.
                return match self.get(function) {
                    Value::Global(name) if name.starts_with("torch._utils._rebuild_") => {
                        self.call(function, args)
                    }
                    _ => self.push(Value::Opaque(function)),
                };
            }
            (
                "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
                &[tensor, ..],
            ) => {
                self.stack.push(tensor);
                return Ok(());
            }
            (
                "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor",
                &[storage, offset, shape, strides, ..],
            ) => self.tensor(storage, offset, shape, strides)?,
            ("collections.OrderedDict" | "collections.defaultdict", args) => {
                let items = args.last().map_or_else(Vec::new, |items| self.dict_of(*items));
                self.copied += items.len();
                if self.copied > MAX_VALUES {
                    return Err(format!("dictionaries with more than {MAX_VALUES} items"));
                }
                Value::Dict(items)
            }
            _ => Value::Opaque(callable),
        };
        self.push(value)
    }

    /// The pairs of a list of pairs: an argument of OrderedDict.
    fn dict_of(&self, items: Id) -> Vec<(Id, Id)> {
        let Value::List(items) = self.get(items) else { return Vec::new() };
        let pair = |id: &Id| match self.get(*id) {
            Value::Tuple(pair) | Value::List(pair) => Some((*pair.first()?, *pair.get(1)?)),
            _ => None,
        };
        items.iter().filter_map(pair).collect()
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Result<Value> {
        for id in [storage, offset, shape, strides] {
            if let Value::Opaque(function) = self.get(id) {
                return Ok(Value::Opaque(*function));
            }
        }
        let number = |id: Id| match self.get(id) {
            Value::Int(n) => usize::try_from(*n).map_err(|_| format!("a tensor with a size of {n}")),
            _ => Err("a tensor with a size that is no number".into()),
        };
        let numbers = |id: Id| match self.get(id) {
            Value::Tuple(items) | Value::List(items) if items.len() <= MAX_AXES => {
                items.iter().map(|id| number(*id)).collect::<Result<Vec<_>>>()
            }
            _ => Err(format!("a tensor without a shape of at most {MAX_AXES} axes")),
        };
        if !matches!(self.get(storage), Value::Storage(_)) {
            return Err("a tensor without a storage".into());
        }
        let (offset, shape, strides) = (number(offset)?, numbers(shape)?, numbers(strides)?);
        if shape.len() != strides.len() {
            return Err("a tensor with more or fewer strides than axes".into());
        }
        Ok(Value::Tensor(TensorRef { storage, offset, shape, strides }))
    }

    /// `("storage", type, key, device, length)`: elements elsewhere in the file.
    fn persistent(&mut self, id: Id) -> Result<()> {
        let Value::Tuple(parts) = self.get(id) else { return self.push(Value::Opaque(0)) };
        let [tag, class, key, _, length, view @ ..] = parts.as_slice() else {
            return self.push(Value::Opaque(0));
        };
        let storage = match (self.get(*tag), self.get(*class), self.get(*key), self.get(*length)) {
            (Value::Text(tag), Value::Global(_), Value::Text(_), Value::Int(length))
                if &**tag == "storage" =>
            {
                let length = u64::try_from(*length).map_err(|_| "a storage of negative length")?;
                StorageRef { class: *class, key: *key, length }
            }
            _ => return self.push(Value::Opaque(0)),
        };
        // Files from before PyTorch 0.4 may say that a storage is a part of another one.
        let is_view = view.first().is_some_and(|view| matches!(self.get(*view), Value::Tuple(_)));
        self.push(if is_view { Value::Opaque(0) } else { Value::Storage(storage) })
    }
}

fn global(module: &str, name: &str) -> Result<Box<str>> {
    if module.len() + name.len() > MAX_NAME {
        return Err("a global with a name of more than 1,024 characters".into());
    }
    Ok(format!("{module}.{name}").into())
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>> {
    if !items.len().is_multiple_of(2) {
        return Err("a dictionary with a key that has no value".into());
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// A number of any length, little-endian in two's complement.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Other;
    }
    let sign = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut all = [if sign { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}

fn element_type(class: &str) -> ElementType {
    match class {
        "torch.DoubleStorage" => ElementType::F64,
        "torch.FloatStorage" => ElementType::F32,
        "torch.HalfStorage" => ElementType::F16,
        "torch.BFloat16Storage" => ElementType::BF16,
        "torch.LongStorage" => ElementType::I64,
        "torch.IntStorage" => ElementType::I32,
        "torch.ShortStorage" => ElementType::I16,
        "torch.CharStorage" => ElementType::I8,
        "torch.ByteStorage" => ElementType::U8,
        "torch.BoolStorage" => ElementType::Bool,
        other => ElementType::Other(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn root(pickle: &[u8]) -> Result<String> {
        Pickle::read(pickle).map(|pickle| format!("{:?}", pickle.get(pickle.root)))
    }

    #[test]
    fn numbers_of_every_kind() {
        for (pickle, expected) in [
            (&b"J\xfe\xff\xff\xff."[..], -2),
            (b"K\xff.", 255),
            (b"M\x00\x01.", 256),
            (b"\x8a\x00.", 0),
            (b"\x8a\x02\x00\xff.", -256),
            (b"\x8b\x03\x00\x00\x00\xff\xff\x00.", 65535),
            (b"I-7\n.", -7),
            (b"L9L\n.", 9),
        ] {
            assert_eq!(root(pickle).unwrap(), format!("Int({expected})"));
        }
        assert_eq!(root(b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.").unwrap(), "Other");
    }

    #[test]
    fn lengths_are_not_believed() {
        for pickle in [
            &b"X\xff\xff\xff\xffabc."[..],
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.",
            b"\x8b\xff\xff\xff\x7f\x00.",
            b"\x8e\x00\x00\x00\x00\x00\x01\x00\x00abc.",
            b"cos\nsystem",
            b"(",
            b"",
        ] {
            assert!(root(pickle).unwrap_err().ends_with("it ends too early"));
        }
    }

    #[test]
    fn depth_costs_nothing() {
        let mut pickle = vec![b')'];
        pickle.resize(2_000_000, 0x85);
        pickle.push(b'.');
        assert!(root(&pickle).unwrap().starts_with("Tuple"));
    }

    #[test]
    fn what_doubles_is_shared_or_refused() {
        // Lists of twice the list before, 1,000 times: "a billion laughs" is a few thousand indices here.
        let doubling = [&b"]"[..], &b"2\x86".repeat(1000), b"."].concat();
        assert!(root(&doubling).is_ok());
        // A dictionary of 10,000 items copied 1,000 times.
        let items = [&b"("[..], &b"NN\x86".repeat(10_000), b"lq\x00"].concat();
        let copies = b"ccollections\nOrderedDict\nh\x00\x85R".repeat(1000);
        assert!(root(&[&items, &copies[..], b"."].concat()).unwrap_err().contains("8388608 items"));
        // More values than a checkpoint can need.
        let mut many = vec![b'N'; MAX_VALUES];
        many.push(b'.');
        assert!(root(&many).unwrap_err().contains("8388608 values"));
    }

    #[test]
    fn a_call_is_a_name() {
        for call in
            [&b"cos\nsystem\n(X\x02\0\0\0lstR."[..], b"(X\x02\0\0\0lsios\nsystem\n.", b"(cos\nsystem\nNo."]
        {
            let pickle = Pickle::read(call).unwrap();
            let Value::Opaque(function) = pickle.get(pickle.root) else { panic!("{call:?}") };
            assert_eq!(pickle.name(*function), "os.system");
        }
        // What an opaque object is asked to do is dropped; a tensor of it is as opaque.
        let tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(cos\nsystem\n)RK\0))\x89NtR.";
        let pickle = Pickle::read(tensor).unwrap();
        assert!(matches!(pickle.get(pickle.root), Value::Opaque(f) if pickle.name(*f) == "os.system"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Instructions in any order: an error or a value, never a panic.
        #[test]
        fn any_program(ops in prop::collection::vec(prop::sample::select(
            &b"(.012NKJIGXUC]})ltdaesupqrghjcRbiooQ\x81\x85\x86\x87\x8a\x8c\x90\x91\x92\x93\x94\x95\0\x01\n"[..]
        ), 0..200)) {
            let _ = root(&[b"]}))NN".as_slice(), &ops, b"."].concat());
        }
    }
}
