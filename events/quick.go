package events

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"sync"
)

// reading reads one value at the cursor into a settable value of its type, as encoding/json does, or finds it foreign.
type reading func(c *cursor, v reflect.Value)

// readings are those of the types that were met so far, by type; nil for one that encoding/json has to read.
var readings sync.Map

// read reads the value at the cursor into what to points at, whose zero value it must be.
func (c *cursor) read(to any) {
	v := reflect.ValueOf(to).Elem()
	known, ok := readings.Load(v.Type())
	if !ok {
		known, _ = readings.LoadOrStore(v.Type(), readingOf(v.Type()))
	}
	if read := known.(reading); read != nil {
		read(c, v)
		return
	}
	text := c.bracketed('{')
	if !c.foreign && json.Unmarshal(text, to) != nil {
		c.foreign = true
	}
}

var rawType = reflect.TypeFor[json.RawMessage]()

// readingOf returns nil where a type has a part that this does not know.
func readingOf(t reflect.Type) reading {
	switch {
	case t == rawType:
		return readRaw
	case reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()):
		return readText // a time
	}
	switch t.Kind() {
	case reflect.String:
		return func(c *cursor, v reflect.Value) { v.SetString(c.anyText()) }
	case reflect.Bool:
		return func(c *cursor, v reflect.Value) { v.SetBool(c.bool()) }
	case reflect.Int:
		return func(c *cursor, v reflect.Value) {
			negative := len(c.rest) > 0 && c.rest[0] == '-'
			if negative {
				c.rest = c.rest[1:]
			}
			n := int64(c.number())
			if c.foreign = c.foreign || negative && n == 0; negative {
				n = -n
			}
			v.SetInt(n)
		}
	case reflect.Uint64:
		return func(c *cursor, v reflect.Value) { v.SetUint(c.number()) }
	case reflect.Pointer:
		of := readingOf(t.Elem())
		if of == nil {
			return nil
		}
		return func(c *cursor, v reflect.Value) {
			v.Set(reflect.New(t.Elem()))
			of(c, v.Elem())
		}
	case reflect.Slice:
		return readingOfSlice(t)
	case reflect.Map:
		return readingOfMap(t)
	case reflect.Struct:
		return readingOfStruct(t)
	}
	return nil
}

func readingOfSlice(t reflect.Type) reading {
	of := readingOf(t.Elem())
	if of == nil || t.Elem().Kind() == reflect.Uint8 {
		return nil
	}
	return func(c *cursor, v reflect.Value) {
		v.Set(reflect.MakeSlice(t, 0, 0))
		if c.skip('['); c.next(']') {
			return
		}
		for n := 0; !c.foreign; n++ {
			v.Grow(1)
			v.SetLen(n + 1)
			v.Index(n).SetZero()
			if of(c, v.Index(n)); c.next(']') {
				return
			}
			c.skip(',')
		}
	}
}

func readingOfMap(t reflect.Type) reading {
	of := readingOf(t.Elem())
	if of == nil || t.Key() != reflect.TypeFor[string]() {
		return nil
	}
	return func(c *cursor, v reflect.Value) {
		v.Set(reflect.MakeMap(t))
		if c.skip('{'); c.next('}') {
			return
		}
		for !c.foreign {
			key, value := reflect.ValueOf(c.text()), reflect.New(t.Elem()).Elem()
			c.foreign = c.foreign || v.MapIndex(key).IsValid()
			c.skip(':')
			of(c, value)
			if v.SetMapIndex(key, value); c.next('}') {
				return
			}
			c.skip(',')
		}
	}
}

// field is one of a struct's fields, or of one that is embedded in it.
type field struct {
	name  string
	index []int
	read  reading
}

func readingOfStruct(t reflect.Type) reading {
	fields, ok := fieldsOf(t, nil)
	if !ok || len(fields) > 64 {
		return nil
	}
	return func(c *cursor, v reflect.Value) {
		if c.skip('{'); c.next('}') {
			return
		}
		var seen uint64
		for at := 0; !c.foreign; {
			key := c.plainText()
			if len(fields) == 0 {
				c.foreign = true
				return
			}
			// They come in the order of the fields, with some left out.
			for tried := 0; fields[at].name != string(key); tried++ {
				if at++; at == len(fields) {
					at = 0
				}
				if tried == len(fields) {
					c.foreign = true
					return
				}
			}
			c.foreign = c.foreign || seen&(1<<at) != 0
			seen |= 1 << at
			if c.skip(':'); c.foreign {
				return
			}
			f := &fields[at]
			into := v
			for _, i := range f.index {
				into = into.Field(i)
			}
			if f.read(c, into); c.next('}') {
				return
			}
			c.skip(',')
		}
	}
}

// fieldsOf returns the fields that encoding/json knows. It is false for a struct with a field of an unknown type, with
// an option that changes a value's form, or with two fields of one name, of which encoding/json would choose.
func fieldsOf(t reflect.Type, above []int) (all []field, ok bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		index := append(append([]int{}, above...), i)
		switch {
		case f.Tag.Get("json") == "-":
			continue
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			embedded, ok := fieldsOf(f.Type, index)
			if !ok {
				return nil, false
			}
			all = append(all, embedded...)
			continue
		case !f.IsExported() || f.Anonymous || strings.Contains(options, "string"):
			return nil, false
		case name == "":
			name = f.Name
		}
		read := readingOf(f.Type)
		if read == nil {
			return nil, false
		}
		all = append(all, field{name, index, read})
	}
	names := map[string]bool{}
	for _, f := range all {
		if names[f.name] {
			return nil, false
		}
		names[f.name] = true
	}
	return all, true
}

// readRaw keeps an object as it is.
func readRaw(c *cursor, v reflect.Value) {
	text := c.bracketed('{')
	c.foreign = c.foreign || !json.Valid(text)
	v.SetBytes(append([]byte(nil), text...))
}

// readText reads a value that is written as a text and reads itself.
func readText(c *cursor, v reflect.Value) {
	text := c.quoted()
	if !c.foreign && json.Unmarshal(text, v.Addr().Interface()) != nil {
		c.foreign = true
	}
}

// next skips a byte if it is the next.
func (c *cursor) next(b byte) bool {
	if c.foreign || len(c.rest) == 0 || c.rest[0] != b {
		return false
	}
	c.rest = c.rest[1:]
	return true
}

// anyText reads a string, one that is not plain as encoding/json does.
func (c *cursor) anyText() (text string) {
	quoted := c.quoted()
	if c.foreign {
		return ""
	}
	if inner := quoted[1 : len(quoted)-1]; plain(inner) {
		return string(inner)
	}
	if json.Unmarshal(quoted, &text) != nil {
		c.foreign = true
	}
	return text
}

// quoted returns a string with its quotes.
func (c *cursor) quoted() []byte {
	if c.foreign || len(c.rest) == 0 || c.rest[0] != '"' {
		c.foreign = true
		return nil
	}
	for i := 1; i < len(c.rest); i++ {
		switch c.rest[i] {
		case '\\':
			i++
		case '"':
			text := c.rest[:i+1]
			c.rest = c.rest[i+1:]
			return text
		}
	}
	c.foreign = true
	return nil
}

func (c *cursor) bool() bool {
	if rest, ok := bytes.CutPrefix(c.rest, []byte("true")); ok {
		c.rest = rest
		return true
	}
	rest, ok := bytes.CutPrefix(c.rest, []byte("false"))
	c.rest, c.foreign = rest, c.foreign || !ok
	return false
}

// longNumber has more digits than every integer of 64 bits can hold.
const longNumber = 19

// number reads a natural number.
func (c *cursor) number() (n uint64) {
	i := 0
	for ; i < min(len(c.rest), longNumber) && c.rest[i] >= '0' && c.rest[i] <= '9'; i++ {
		n = 10*n + uint64(c.rest[i]-'0')
	}
	if i == 0 || i == longNumber || i > 1 && c.rest[0] == '0' {
		c.foreign = true
		return 0
	}
	c.rest = c.rest[i:]
	return n
}
