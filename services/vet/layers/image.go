package layers

import (
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Layer is a layer that was read: a tar file on the disk.
type Layer struct{ DiffID, File string }

// Layers are those that were read, the lowest first.
func (i *Image) Layers() []Layer {
	all := make([]Layer, len(i.layers))
	for n, l := range i.layers {
		all[n] = Layer{l.diffID.String(), l.path}
	}
	return all
}

// V1 returns the image as it lies on the disk: the same configuration and DiffIDs, its layers not
// compressed. Its manifest, and so its digest, are others than the registry's.
func (i *Image) V1() (v1.Image, error) {
	if !i.Whole() {
		return nil, fmt.Errorf("the image was not read as a whole: %s", i.Faults[0].What)
	}
	return partial.UncompressedToImage(&diskImage{i})
}

// diskImage is what package partial derives an image from.
type diskImage struct{ image *Image }

func (d *diskImage) RawConfigFile() ([]byte, error)      { return d.image.rawJSON, nil }
func (d *diskImage) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (d *diskImage) LayerByDiffID(h v1.Hash) (partial.UncompressedLayer, error) {
	for _, l := range d.image.layers {
		if l.diffID == h {
			return l, nil
		}
	}
	return nil, fmt.Errorf("image has no layer %s", h)
}

// diskLayer is an unpacked layer on the disk.
type diskLayer struct {
	path   string
	diffID v1.Hash
}

func (l diskLayer) DiffID() (v1.Hash, error)             { return l.diffID, nil }
func (l diskLayer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.path) }
func (l diskLayer) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }
