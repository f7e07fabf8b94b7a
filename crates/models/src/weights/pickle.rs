//! What a pickle says, without doing it: a reader of the part of Python's pickle language that PyTorch writes state dicts in.
//!
//! Nothing is ever called. A call becomes a record of who was to be called with what, and only those can be named that PyTorch itself allows
//! weights to name. Values are numbers of nodes in one list, so a value that contains itself, one that is repeated a billion times and
//! one nested a million deep cost no more memory than the bytes that say so, and freeing them takes no recursion.

use std::collections::HashMap;

use candle_core::{Error, Result};

/// The largest pickle that is read; that of a network with a thousand tensors has about 200 kB.
pub(super) const MAX_BYTES: u64 = 1 << 22;

/// The position of a node.
pub(super) type Id = usize;

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Integer(i64),
    /// `module.name`.
    Global(String),
    Sequence(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// What was to be called with which arguments.
    Call(Id, Id),
    /// What the file keeps elsewhere: a storage.
    Persistent(Id),
    /// None, a boolean, a float: no part of a tensor.
    Other,
}

#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    root: Id,
}

impl Pickle {
    /// Reads a pickle to its STOP.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let mut machine =
            Machine { rest: bytes, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        while machine.step()? {}
        let root = machine.pop()?;
        Ok(Self { nodes: machine.nodes, root })
    }

    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn global(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Global(name) => Some(name),
            _ => None,
        }
    }

    pub(super) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::Sequence(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn dict(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.node(id) {
            Node::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// A size, a stride or an offset.
    pub(super) fn size(&self, id: Id) -> Option<usize> {
        match self.node(id) {
            Node::Integer(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }
}

/// Whether weights may name it: what `torch.load(weights_only=True)` knows, as far as state dicts use it.
fn is_known(global: &str) -> bool {
    const KNOWN: [&str; 8] = [
        "collections.OrderedDict",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor_v2",
        "torch._tensor._rebuild_from_type_v2",
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
        "torch.Size",
        "torch.device",
    ];
    let is_storage = global
        .strip_prefix("torch.")
        .is_some_and(|name| name.ends_with("Storage") && name.chars().all(|letter| letter.is_ascii_alphanumeric()));
    is_storage || KNOWN.contains(&global)
}

struct Machine<'a> {
    rest: &'a [u8],
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    /// One instruction; false after the last.
    fn step(&mut self) -> Result<bool> {
        let [opcode] = self.take()?;
        match opcode {
            b'.' => return Ok(false),
            0x80 => {
                self.take::<1>()?; // PROTO: the version; an instruction that we do not know says enough
            }
            b'(' => self.marks.push(self.stack.len()),
            b'N' | 0x88 | 0x89 => self.push(Node::Other), // NONE, NEWTRUE, NEWFALSE
            b'G' => {
                self.take::<8>()?; // BINFLOAT
                self.push(Node::Other);
            }
            b'K' => {
                let [byte] = self.take()?;
                self.push(Node::Integer(byte.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.take()?);
                self.push(Node::Integer(value.into()));
            }
            b'J' => {
                let value = i32::from_le_bytes(self.take()?);
                self.push(Node::Integer(value.into()));
            }
            0x8A => self.long()?,
            b'X' => {
                let length = u32::from_le_bytes(self.take()?);
                let text = self.text(length as usize)?;
                self.push(Node::Text(text));
            }
            b'c' => self.name_global()?,
            b')' | b']' => self.push(Node::Sequence(Vec::new())),
            b'}' => self.push(Node::Dict(Vec::new())),
            b't' => {
                let items = self.above_mark()?;
                self.push(Node::Sequence(items));
            }
            0x85..=0x87 => {
                let items = self.last(usize::from(opcode - 0x84))?; // TUPLE1, TUPLE2, TUPLE3
                self.push(Node::Sequence(items));
            }
            b'a' | b'e' => {
                let items = if opcode == b'a' { self.last(1)? } else { self.above_mark()? };
                match self.top()? {
                    Node::Sequence(list) => list.extend(items),
                    _ => return Err(self.wrong("appends to what is no list")),
                }
            }
            b's' | b'u' => {
                let items = if opcode == b's' { self.last(2)? } else { self.above_mark()? };
                if !items.len().is_multiple_of(2) {
                    return Err(self.wrong("sets an item that has no value"));
                }
                match self.top()? {
                    Node::Dict(entries) => entries.extend(items.chunks_exact(2).map(|entry| (entry[0], entry[1]))),
                    // A subclass of dict, kept as the call that makes it.
                    Node::Call(..) => {}
                    _ => return Err(self.wrong("sets an item of what is no dict")),
                }
            }
            b'R' | 0x81 => self.record_call()?, // REDUCE, NEWOBJ
            b'b' => {
                self.pop()?; // BUILD: attributes are no items
                self.top()?;
            }
            b'Q' => {
                let storage = self.pop()?;
                self.push(Node::Persistent(storage));
            }
            b'q' | b'r' => {
                let key = self.memo_key(opcode == b'q')?;
                let top = *self.stack.last().ok_or_else(|| self.wrong("takes from an empty stack"))?;
                self.memo.insert(key, top);
            }
            b'h' | b'j' => {
                let key = self.memo_key(opcode == b'h')?;
                let id = *self.memo.get(&key).ok_or_else(|| self.wrong("recalls what it never said"))?;
                self.stack.push(id);
            }
            other => return Err(self.wrong(&format!("instruction {other:#04x} is not read"))),
        }
        Ok(true)
    }

    fn wrong(&self, what: &str) -> Error {
        Error::Msg(format!("pickle, {} bytes before its end: {what}", self.rest.len()))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| self.wrong("ends early"))?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let (text, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.wrong("ends early"))?;
        let text = std::str::from_utf8(text).map_err(|_| self.wrong("holds a text that is not UTF-8"))?;
        self.rest = rest;
        Ok(text.to_owned())
    }

    fn line(&mut self) -> Result<String> {
        let length = self.rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| self.wrong("ends early"))?;
        let line = self.text(length)?;
        self.rest = &self.rest[1..];
        Ok(line)
    }

    fn name_global(&mut self) -> Result<()> {
        let name = format!("{}.{}", self.line()?, self.line()?);
        if !is_known(&name) {
            return Err(Error::Msg(format!("names {name:?}, which is no part of weights; nothing was executed")));
        }
        self.push(Node::Global(name));
        Ok(())
    }

    /// LONG1: up to 8 bytes, little endian, in two's complement. Longer ones are no sizes.
    fn long(&mut self) -> Result<()> {
        let [length] = self.take()?;
        let bytes = self.rest.get(..length.into()).ok_or_else(|| self.wrong("ends early"))?;
        let node = if bytes.len() > 8 {
            Node::Other
        } else {
            let fill = if bytes.last().is_some_and(|&highest| highest >= 0x80) { 0xFF } else { 0 };
            let mut value = [fill; 8];
            value[..bytes.len()].copy_from_slice(bytes);
            Node::Integer(i64::from_le_bytes(value))
        };
        self.rest = &self.rest[length.into()..];
        self.push(node);
        Ok(())
    }

    fn memo_key(&mut self, is_short: bool) -> Result<u32> {
        if is_short {
            let [key] = self.take()?;
            return Ok(key.into());
        }
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn record_call(&mut self) -> Result<()> {
        let arguments = self.pop()?;
        let callable = self.pop()?;
        let is_dict = matches!(&self.nodes[callable], Node::Global(name) if name == "collections.OrderedDict");
        self.push(if is_dict { Node::Dict(Vec::new()) } else { Node::Call(callable, arguments) });
        Ok(())
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    fn pop(&mut self) -> Result<Id> {
        let above = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= above {
            return Err(self.wrong("takes from an empty stack"));
        }
        self.stack.pop().ok_or_else(|| self.wrong("takes from an empty stack"))
    }

    fn top(&mut self) -> Result<&mut Node> {
        // A mark's values are taken before its list is looked at, so that no mark lies above the list.
        let top = *self.stack.last().ok_or_else(|| self.wrong("takes from an empty stack"))?;
        Ok(&mut self.nodes[top])
    }

    /// The last `count` values, in their order.
    fn last(&mut self, count: usize) -> Result<Vec<Id>> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        items.reverse();
        Ok(items)
    }

    fn above_mark(&mut self) -> Result<Vec<Id>> {
        let height = self.marks.pop().ok_or_else(|| self.wrong("closes what it never opened"))?;
        // Whatever is taken from the stack is checked to lie above the last mark.
        Ok(self.stack.split_off(height.min(self.stack.len())))
    }
}
