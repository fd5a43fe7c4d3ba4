// Package strictyaml reads configuration files in a plain part of YAML and reports everything that is
// wrong at once, each fault with its line, its key and what is allowed.
//
// It guarantees time and memory in proportion to the file: anchors, aliases, merge keys, tags and
// several documents in one file are refused, and size, depth and number of values are bounded. It does
// not know any file's schema: the packages that own one call the methods of Reader.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits bound a file.
type Limits struct {
	Size  int // bytes
	Depth int // nesting of mappings and lists
	Nodes int // keys and values
	// Empty is what to do about a file that holds nothing; it may be empty.
	Empty string
}

// Reader turns YAML nodes into values and collects every fault on the way. Its methods return a usable
// value when they have recorded a fault, so that reading goes on; what was not given keeps its default,
// because no method is called for it. A Reader is not safe for concurrent use.
type Reader struct {
	file   string
	data   []byte
	faults []Fault
}

var (
	yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	// yamlFromZero tells the errors in which the YAML reader counts lines from 0.
	yamlFromZero = regexp.MustCompile(`^did not find expected (<|node content|'-' indicator|key|',')`)
)

// Open reads the one document of data, which errors call file. The root is nil where the file is empty
// or no YAML of the plain kind; Err then says why.
func Open(file string, data []byte, limits Limits) (*Reader, *yaml.Node) {
	r := &Reader{file: file, data: data}
	root := r.document(data, limits)
	if len(r.faults) > 0 {
		return r, nil
	}
	return r, root
}

func (r *Reader) document(data []byte, limits Limits) *yaml.Node {
	whole := &yaml.Node{Line: 1}
	if len(data) > limits.Size {
		r.Fault(whole, "", fmt.Sprintf("the file has %d bytes, allowed are %d", len(data), limits.Size), "", "")
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		r.Fault(whole, "", "the file is empty", "", limits.Empty)
		return nil
	} else if err != nil {
		r.syntax(err)
		return nil
	}
	if err := decoder.Decode(&second); err == nil {
		r.Fault(&second, "", "a second document begins here; the file must hold one", "", "remove the line ---")
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
	}
	if document.Kind != yaml.DocumentNode || len(document.Content) != 1 {
		r.Fault(whole, "", "the file is empty", "", limits.Empty)
		return nil
	}
	left := limits.Nodes
	r.plain(document.Content[0], limits.Depth, &left)
	return document.Content[0]
}

// syntax turns the YAML reader's error into a fault on the line that it names.
func (r *Reader) syntax(err error) {
	line, text := 1, err.Error()
	if match := yamlLine.FindStringSubmatch(text); match != nil {
		if n, convErr := strconv.Atoi(match[1]); convErr == nil {
			line = n
		}
		text = match[2]
		if match[1] != "" && yamlFromZero.MatchString(text) {
			line++
		}
	}
	hint := ""
	if strings.Contains(text, "cannot start any token") {
		hint = "YAML is indented with spaces, and texts that begin with @, ` or % need quotes"
	}
	r.Fault(&yaml.Node{Line: line}, "", "not valid YAML: "+text, "", hint)
}

// plain refuses everything but plain mappings, lists and scalars, down to a depth and up to a number of
// nodes.
func (r *Reader) plain(node *yaml.Node, depth int, left *int) {
	*left--
	switch {
	case *left == 0:
		r.Fault(node, "", "the file holds too many values", "", "")
	case *left < 0:
	case depth == 0:
		r.Fault(node, "", "nested too deeply", "", "")
	case node.Kind == yaml.AliasNode:
		r.Fault(node, "", "aliases (*name) are not allowed", "*"+node.Value, "write the value out")
	case node.Anchor != "":
		r.Fault(node, "", "anchors (&name) are not allowed", "&"+node.Anchor, "write the value out where it is needed")
	case node.Style&yaml.TaggedStyle != 0:
		r.Fault(node, "", "tags are not allowed", node.Tag, "remove it")
	default:
		for _, child := range node.Content {
			r.plain(child, depth-1, left)
		}
	}
}
