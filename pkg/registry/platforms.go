package registry

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Platforms returns the platforms ("linux/amd64", "linux/arm/v7") that the artifact has images for, where
// it is an image index; none where it is one image. Entries that are no images, such as BuildKit's
// attestations, are left out.
func (c *Client) Platforms(ctx context.Context, a Artifact) ([]string, error) {
	got, err := remote.Get(a.ref(), c.with(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("reading image %s: %w", a, classify(err))
	}
	if !got.MediaType.IsIndex() {
		return nil, nil
	}
	index, err := got.ImageIndex()
	if err != nil {
		return nil, fmt.Errorf("reading image %s: %w", a, classify(err))
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("reading image %s: %w: %w", a, ErrRefused, err)
	}
	var platforms []string
	for _, m := range manifest.Manifests {
		if m.Platform != nil && m.Platform.OS != "unknown" && m.MediaType.IsImage() {
			platforms = append(platforms, m.Platform.String())
		}
	}
	return platforms, nil
}
