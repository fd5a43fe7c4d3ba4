package fold

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// The state has one form in bytes, so that two folds can be compared and one can be kept:
//
//   - a struct is its fields in the order of their declaration, those tagged `fold:"-"` left out; JSON tags are of
//     no account, since the ids of events' subjects have none
//   - a slice or map is its length plus one, 0 where it is nil, and its elements, those of a map by key
//   - a pointer is 1 and what it points at, or 0
//   - a number is a varint, a time its seconds and nanoseconds in UTC
//   - a text is its length times four and its bytes the first time, and after that its place among the texts that
//     were written so far, times four plus one: most texts of a ledger are the same few. A UUID is 2 and its 16 bytes,
//     a digest ("sha256:…") 3 and its 32
//   - what has a form of its own (sequenced) has that
//
// A type that has a field of another kind (an interface, a function, a channel) or a field that is not exported
// has no such form; shapeOf panics on it, and a test calls it.

// skipTag marks a field that is not part of the state: it follows from another.
const skipTag = "-"

var (
	timeType  = reflect.TypeFor[time.Time]()
	bytesKind = reflect.Uint8
)

// fieldsOf returns the indices of a struct's fields that are part of the state.
func fieldsOf(t reflect.Type) []int {
	var all []int
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Tag.Get("fold") == skipTag {
			continue
		}
		if !f.IsExported() {
			panic(fmt.Sprintf("fold: %s.%s is not exported, so that it cannot be part of a state: export it, or derive it and tag it `fold:\"-\"`", t, f.Name))
		}
		all = append(all, i)
	}
	return all
}

// shapeOf describes a type as far as the form of its values depends on it. It panics where they have none.
func shapeOf(t reflect.Type) string {
	var b strings.Builder
	seen := map[reflect.Type]bool{}
	var describe func(reflect.Type)
	describe = func(t reflect.Type) {
		if t == timeType {
			b.WriteString("time")
			return
		}
		if s, ok := reflect.Zero(t).Interface().(sequenced); ok {
			b.WriteString("sequence:")
			describe(s.elements())
			return
		}
		switch t.Kind() {
		case reflect.Bool, reflect.Int, reflect.Int64, reflect.Uint64, reflect.String:
			b.WriteString(t.Kind().String())
		case reflect.Pointer:
			b.WriteByte('*')
			describe(t.Elem())
		case reflect.Slice:
			b.WriteString("[]")
			if t.Elem().Kind() == bytesKind {
				b.WriteString("byte")
				return
			}
			describe(t.Elem())
		case reflect.Map:
			if t.Key().Kind() != reflect.String {
				panic(fmt.Sprintf("fold: %s has keys that are no texts", t))
			}
			b.WriteString("map:")
			describe(t.Elem())
		case reflect.Struct:
			if seen[t] {
				b.WriteString(t.String())
				return
			}
			seen[t] = true
			b.WriteByte('{')
			for _, i := range fieldsOf(t) {
				b.WriteString(t.Field(i).Name + " ")
				describe(t.Field(i).Type)
				b.WriteByte(';')
			}
			b.WriteByte('}')
		default:
			panic(fmt.Sprintf("fold: a state cannot hold a %s (%s)", t, t.Kind()))
		}
	}
	describe(t)
	return b.String()
}

// sequenced is what a sequence is to those that write, read and compare it.
type sequenced interface {
	write(*writer)
	elements() reflect.Type
	Len() int
	element(n int) reflect.Value
}

// codec writes and reads the values of one type.
type codec struct {
	write func(*writer, reflect.Value)
	read  func(*reader, reflect.Value)
}

// codecOf makes a type's codec. Codecs of types within are made once.
func codecOf(t reflect.Type, made map[reflect.Type]*codec) *codec {
	if c := made[t]; c != nil {
		return c
	}
	c := &codec{}
	made[t] = c
	if t == timeType {
		c.write, c.read = writeTime, readTime
		return c
	}
	if s, ok := reflect.Zero(t).Interface().(sequenced); ok {
		codecOf(s.elements(), made)
		c.write = func(w *writer, v reflect.Value) { v.Interface().(sequenced).write(w) }
		c.read = func(r *reader, v reflect.Value) { v.Addr().Interface().(interface{ read(*reader) }).read(r) }
		return c
	}
	switch t.Kind() {
	case reflect.Bool:
		c.write = func(w *writer, v reflect.Value) { w.bool(v.Bool()) }
		c.read = func(r *reader, v reflect.Value) { v.SetBool(r.bool()) }
	case reflect.Int, reflect.Int64:
		c.write = func(w *writer, v reflect.Value) { w.int(v.Int()) }
		c.read = func(r *reader, v reflect.Value) { v.SetInt(r.int()) }
	case reflect.Uint64:
		c.write = func(w *writer, v reflect.Value) { w.uint(v.Uint()) }
		c.read = func(r *reader, v reflect.Value) { v.SetUint(r.uint()) }
	case reflect.String:
		c.write = func(w *writer, v reflect.Value) { w.text(v.String()) }
		c.read = func(r *reader, v reflect.Value) { v.SetString(r.text()) }
	case reflect.Pointer:
		c.ofPointer(t, codecOf(t.Elem(), made))
	case reflect.Slice:
		if t.Elem().Kind() == bytesKind {
			c.write, c.read = writeBytes, readBytes
			return c
		}
		c.ofSlice(t, codecOf(t.Elem(), made))
	case reflect.Map:
		of := codecOf(t.Elem(), made)
		c.write = func(w *writer, v reflect.Value) { writeMap(w, v, of) }
		c.read = func(r *reader, v reflect.Value) { readMap(r, v, t, of) }
	case reflect.Struct:
		c.ofStruct(t, made)
	default:
		panic(fmt.Sprintf("fold: a state cannot hold a %s (%s)", t, t.Kind()))
	}
	return c
}

func (c *codec) ofPointer(t reflect.Type, of *codec) {
	c.write = func(w *writer, v reflect.Value) {
		if w.bool(!v.IsNil()); !v.IsNil() {
			of.write(w, v.Elem())
		}
	}
	c.read = func(r *reader, v reflect.Value) {
		if r.bool() {
			v.Set(reflect.New(t.Elem()))
			of.read(r, v.Elem())
		}
	}
}

func (c *codec) ofSlice(t reflect.Type, of *codec) {
	c.write = func(w *writer, v reflect.Value) {
		w.length(v.IsNil(), v.Len())
		for i := range v.Len() {
			of.write(w, v.Index(i))
		}
	}
	c.read = func(r *reader, v reflect.Value) {
		n, ok := r.length()
		if !ok {
			return
		}
		v.Set(reflect.MakeSlice(t, n, n))
		for i := 0; i < n && r.err == nil; i++ {
			of.read(r, v.Index(i))
		}
	}
}

func (c *codec) ofStruct(t reflect.Type, made map[reflect.Type]*codec) {
	fields := fieldsOf(t)
	codecs := make([]*codec, len(fields))
	for i, field := range fields {
		codecs[i] = codecOf(t.Field(field).Type, made)
	}
	c.write = func(w *writer, v reflect.Value) {
		for i, field := range fields {
			codecs[i].write(w, v.Field(field))
		}
	}
	c.read = func(r *reader, v reflect.Value) {
		for i, field := range fields {
			codecs[i].read(r, v.Field(field))
		}
	}
}

func writeMap(w *writer, v reflect.Value, of *codec) {
	w.length(v.IsNil(), v.Len())
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for _, k := range keys {
		w.text(k.String())
		of.write(w, v.MapIndex(k))
	}
}

func readMap(r *reader, v reflect.Value, t reflect.Type, of *codec) {
	n, ok := r.length()
	if !ok {
		return
	}
	v.Set(reflect.MakeMapWithSize(t, n))
	for i := 0; i < n && r.err == nil; i++ {
		key := reflect.New(t.Key()).Elem()
		key.SetString(r.text())
		value := reflect.New(t.Elem()).Elem()
		of.read(r, value)
		v.SetMapIndex(key, value)
	}
}

func writeTime(w *writer, v reflect.Value) {
	at := v.Interface().(time.Time)
	w.int(at.Unix())
	w.uint(uint64(at.Nanosecond()))
}

func readTime(r *reader, v reflect.Value) {
	seconds, nanoseconds := r.int(), r.uint()
	if nanoseconds >= uint64(time.Second) {
		r.fail("a time has %d nanoseconds", nanoseconds)
		return
	}
	v.Set(reflect.ValueOf(time.Unix(seconds, int64(nanoseconds)).UTC()))
}

func writeBytes(w *writer, v reflect.Value) {
	if w.bool(!v.IsNil()); !v.IsNil() {
		w.text(string(v.Bytes()))
	}
}

// readBytes shares the bytes of equal texts, as nothing in a state is changed in place.
func readBytes(r *reader, v reflect.Value) {
	if !r.bool() {
		return
	}
	text := r.text()
	shared, ok := r.shared[text]
	if !ok {
		if r.shared == nil {
			r.shared = map[string][]byte{}
		}
		shared = []byte(text)
		r.shared[text] = shared
	}
	v.Set(reflect.ValueOf(shared).Convert(v.Type()))
}

// writer appends values in the form above.
type writer struct {
	data  []byte
	texts map[string]uint64
}

func newWriter() *writer { return &writer{texts: map[string]uint64{}} }

// writers are kept for the next value that is packed.
var writers = sync.Pool{New: func() any { return newWriter() }}

func (w *writer) uint(n uint64) { w.data = binary.AppendUvarint(w.data, n) }
func (w *writer) int(n int64)   { w.data = binary.AppendVarint(w.data, n) }

func (w *writer) bool(b bool) {
	if b {
		w.data = append(w.data, 1)
	} else {
		w.data = append(w.data, 0)
	}
}

func (w *writer) length(isNil bool, n int) {
	if isNil {
		w.uint(0)
	} else {
		w.uint(uint64(n) + 1)
	}
}

// Kinds of texts.
const (
	literal = iota
	again
	uuid
	digest
	kinds
)

const digestHead = "sha256:"

func (w *writer) text(s string) {
	if place, ok := w.texts[s]; ok {
		w.uint(place*kinds + again)
		return
	}
	w.texts[s] = uint64(len(w.texts))
	switch {
	case isUUID(s):
		w.uint(uuid)
		w.hex(s[:8], s[9:13], s[14:18], s[19:23], s[24:])
	case len(s) == len(digestHead)+64 && strings.HasPrefix(s, digestHead) && isHex(s[len(digestHead):]):
		w.uint(digest)
		w.hex(s[len(digestHead):])
	default:
		w.uint(uint64(len(s))*kinds + literal)
		w.data = append(w.data, s...)
	}
}

// hex appends the bytes that lower-case hexadecimal digits stand for.
func (w *writer) hex(digits ...string) {
	value := func(c byte) byte {
		if c >= 'a' {
			return c - 'a' + 10
		}
		return c - '0'
	}
	for _, d := range digits {
		for i := 0; i < len(d); i += 2 {
			w.data = append(w.data, value(d[i])<<4|value(d[i+1]))
		}
	}
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func isUUID(s string) bool {
	return len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' &&
		isHex(s[:8]) && isHex(s[9:13]) && isHex(s[14:18]) && isHex(s[19:23]) && isHex(s[24:])
}

// errNoState is wrapped for bytes that no writer has made.
var errNoState = errors.New("these bytes are no state")

// reader reads what writer wrote. After its first error every value is the zero one.
type reader struct {
	data   string
	keep   bool // data is kept as long as what is read from it
	texts  []string
	shared map[string][]byte
	err    error
}

func (r *reader) fail(format string, a ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s, %d bytes before the end", errNoState, fmt.Sprintf(format, a...), len(r.data))
	}
}

func (r *reader) uint() uint64 {
	if r.err != nil {
		return 0
	}
	var n uint64
	for i := range min(len(r.data), binary.MaxVarintLen64) {
		b := r.data[i]
		n |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			if i == binary.MaxVarintLen64-1 && b > 1 {
				break
			}
			r.data = r.data[i+1:]
			return n
		}
	}
	r.fail("a number is cut off")
	return 0
}

func (r *reader) int() int64 {
	n := r.uint()
	return int64(n>>1) ^ -int64(n&1)
}

func (r *reader) bool() bool {
	n := r.uint()
	if n > 1 {
		r.fail("%d is neither yes nor no", n)
	}
	return n == 1
}

// length reads a length; false is nil. What is left must have room for so many elements, so that damaged bytes
// cannot ask for any amount of memory.
func (r *reader) length() (n int, ok bool) {
	m := r.uint()
	if m == 0 || r.err != nil {
		return 0, false
	}
	if m-1 > uint64(len(r.data)) {
		r.fail("%d elements do not fit", m-1)
		return 0, false
	}
	return int(m - 1), true
}

func (r *reader) text() string {
	n := r.uint()
	if r.err != nil {
		return ""
	}
	if n%kinds == again {
		if n/kinds >= uint64(len(r.texts)) {
			r.fail("there is no text %d", n/kinds)
			return ""
		}
		return r.texts[n/kinds]
	}
	size := n / kinds
	switch n {
	case uuid:
		size = 16
	case digest:
		size = 32
	default:
		if n%kinds != literal {
			r.fail("there is no kind of text %d", n)
			return ""
		}
	}
	if size > uint64(len(r.data)) {
		r.fail("a text of %d bytes is cut off", size)
		return ""
	}
	s := r.data[:size]
	r.data = r.data[size:]
	switch {
	case n == uuid:
		s = fmtUUID(s)
	case n == digest:
		s = fmtDigest(s)
	case !r.keep:
		s = strings.Clone(s)
	}
	r.texts = append(r.texts, s)
	return s
}

const hexDigits = "0123456789abcdef"

func fmtDigest(b string) string {
	text := append(make([]byte, 0, len(digestHead)+2*len(b)), digestHead...)
	for i := range len(b) {
		text = append(text, hexDigits[b[i]>>4], hexDigits[b[i]&15])
	}
	return string(text)
}

func fmtUUID(b string) string {
	text := make([]byte, 0, 36)
	for i := range len(b) {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			text = append(text, '-')
		}
		text = append(text, hexDigits[b[i]>>4], hexDigits[b[i]&15])
	}
	return string(text)
}

// pack returns a value in the form above, by itself.
func pack(of any) string {
	w := writers.Get().(*writer)
	defer writers.Put(w)
	clear(w.texts)
	w.data = w.data[:0]
	v := reflect.ValueOf(of).Elem()
	codecs()[v.Type()].write(w, v)
	return string(w.data)
}

// unpack reads what pack wrote, or the first fields of it.
func unpack(data string, into any) *reader {
	r := &reader{data: data, keep: true}
	v := reflect.ValueOf(into).Elem()
	codecs()[v.Type()].read(r, v)
	return r
}

// firstDifference returns the path of the first field in which two values of the same type differ, with both
// values; an empty path where they are the same. Fields come in the order of their form in bytes.
func firstDifference(path string, a, b reflect.Value) (where, left, right string) {
	show := func(v reflect.Value) string {
		text := fmt.Sprintf("%+v", v.Interface())
		return fmt.Sprintf("%.120s", text)
	}
	t := a.Type()
	if t == timeType {
		if a.Interface().(time.Time).Equal(b.Interface().(time.Time)) {
			return "", "", ""
		}
		return path, show(a), show(b)
	}
	if here, ok := a.Interface().(sequenced); ok {
		there := b.Interface().(sequenced)
		for n := range min(here.Len(), there.Len()) {
			at := fmt.Sprintf("%s[%d]", path, n)
			if where, left, right = firstDifference(at, here.element(n+1), there.element(n+1)); where != "" {
				return where, left, right
			}
		}
		if here.Len() != there.Len() {
			return path, fmt.Sprintf("%d elements", here.Len()), fmt.Sprintf("%d elements", there.Len())
		}
		return "", "", ""
	}
	absent := func(v reflect.Value) string {
		if v.IsNil() {
			return "nothing"
		}
		return "there"
	}
	switch t.Kind() {
	case reflect.Pointer:
		if a.IsNil() || b.IsNil() {
			if a.IsNil() == b.IsNil() {
				return "", "", ""
			}
			return path, absent(a), absent(b)
		}
		return firstDifference(path, a.Elem(), b.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == bytesKind {
			if a.IsNil() == b.IsNil() && string(a.Bytes()) == string(b.Bytes()) {
				return "", "", ""
			}
			return path, fmt.Sprintf("%.120q", a.Bytes()), fmt.Sprintf("%.120q", b.Bytes())
		}
		for i := range min(a.Len(), b.Len()) {
			if where, left, right = firstDifference(fmt.Sprintf("%s[%d]", path, i), a.Index(i), b.Index(i)); where != "" {
				return where, left, right
			}
		}
		if a.Len() != b.Len() {
			return path, fmt.Sprintf("%d elements", a.Len()), fmt.Sprintf("%d elements", b.Len())
		}
		if a.IsNil() != b.IsNil() {
			return path, absent(a), absent(b)
		}
		return "", "", ""
	case reflect.Map:
		return firstMapDifference(path, a, b, absent)
	case reflect.Struct:
		for _, i := range fieldsOf(t) {
			if where, left, right = firstDifference(path+"."+t.Field(i).Name, a.Field(i), b.Field(i)); where != "" {
				return where, left, right
			}
		}
		return "", "", ""
	}
	if a.Equal(b) {
		return "", "", ""
	}
	return path, show(a), show(b)
}

func firstMapDifference(path string, a, b reflect.Value, absent func(reflect.Value) string) (where, left, right string) {
	names := map[string]reflect.Value{}
	for _, m := range []reflect.Value{a, b} {
		for _, k := range m.MapKeys() {
			names[k.String()] = k
		}
	}
	var sorted []string
	for name := range names {
		sorted = append(sorted, name)
	}
	slices.Sort(sorted)
	for _, name := range sorted {
		in, of := a.MapIndex(names[name]), b.MapIndex(names[name])
		at := fmt.Sprintf("%s[%s]", path, name)
		switch {
		case !in.IsValid():
			return at, "nothing", "there"
		case !of.IsValid():
			return at, "there", "nothing"
		}
		if where, left, right = firstDifference(at, in, of); where != "" {
			return where, left, right
		}
	}
	if a.IsNil() != b.IsNil() {
		return path, absent(a), absent(b)
	}
	return "", "", ""
}
