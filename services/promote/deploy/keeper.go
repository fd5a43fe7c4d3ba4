package deploy

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"towpath.dev/pkg/engine"
)

// keeperName names the image of a container that does nothing and so keeps a volume mounted. It is made
// here, because an engine may reach no registry that has such an image.
const keeperName = "towpath-keeper:1"

// keeperCode is, by architecture, a program that waits for ever. It has no data and needs no stack.
var keeperCode = map[string]struct {
	machine uint16 // of the ELF header
	code    []byte
}{
	"amd64": {62, []byte{
		0xb8, 34, 0, 0, 0, // mov eax, SYS_pause
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp back to the first
	}},
	"arm64": {183, words(
		0xd2800928,                                                 // mov x8, SYS_ppoll
		0xd2800000, 0xd2800001, 0xd2800002, 0xd2800003, 0xd2800004, // mov x0 … x4, 0: no files, no end
		0xd4000001, // svc 0
		0x17fffff9, // b back to the first
	)},
}

func words(w ...uint32) []byte {
	var out []byte
	for _, word := range w {
		out = binary.LittleEndian.AppendUint32(out, word)
	}
	return out
}

// keeperImage makes sure that the engine has the image and returns its id.
func keeperImage(ctx context.Context, e *engine.Engine) (string, error) {
	image, err := e.Image(ctx, keeperName)
	if !errors.Is(err, engine.ErrNotFound) {
		return image.ID, err
	}
	info, err := e.Info(ctx)
	if err != nil {
		return "", err
	}
	program, ok := keeperProgram(info.Architecture)
	if !ok {
		return "", fmt.Errorf("secrets on engine %s: there is no keeper for its architecture %s; run the app on amd64 or arm64", e.Host().URL, info.Architecture)
	}
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	if err := w.WriteHeader(&tar.Header{Name: "keeper", Mode: 0o755, Size: int64(len(program))}); err != nil {
		return "", err
	}
	if _, err := w.Write(program); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	if err := e.Import(ctx, keeperName, &files, "", `CMD ["/keeper"]`); err != nil {
		return "", err
	}
	image, err = e.Image(ctx, keeperName)
	return image.ID, err
}

// keeperProgram is a static ELF executable of one segment.
func keeperProgram(architecture string) ([]byte, bool) {
	k, ok := keeperCode[architecture]
	if !ok {
		return nil, false
	}
	const base, headers = 0x400000, 64 + 56
	size := uint64(headers + len(k.code))
	var out bytes.Buffer
	out.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}) // 64 bits, little-endian
	for _, field := range []any{
		uint16(2), k.machine, uint32(1), uint64(base + headers), uint64(64), uint64(0), // executable, entry, program headers
		uint32(0), uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000), // load all, read and execute
	} {
		binary.Write(&out, binary.LittleEndian, field)
	}
	out.Write(k.code)
	return out.Bytes(), true
}
