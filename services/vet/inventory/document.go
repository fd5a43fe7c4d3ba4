package inventory

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/anchore/syft/syft/file"
	"github.com/anchore/syft/syft/format/common/spdxhelpers"
	"github.com/anchore/syft/syft/sbom"
)

// pathResolver is what hasSystem needs of syft's resolver.
type pathResolver interface {
	HasPath(string) bool
	FilesByGlob(patterns ...string) ([]file.Location, error)
}

// spdx writes SPDX 2.3. Time and namespace come from the image, so that the document depends on nothing
// else.
func spdx(found *sbom.SBOM, digest string, created time.Time) ([]byte, error) {
	document := spdxhelpers.ToFormatModel(*found)
	if document == nil {
		return nil, fmt.Errorf("no SPDX document came out")
	}
	document.CreationInfo.Created = stamp(created)
	document.DocumentNamespace = "https://towpath.dev/spdx/" + strings.TrimPrefix(digest, "sha256:") + "/" + Version
	return json.Marshal(document)
}

// stamp is the image's own time, in seconds; the epoch where it has none or an absurd one.
func stamp(created time.Time) string {
	if created.Year() < 1970 || created.Year() > 9999 {
		created = time.Unix(0, 0)
	}
	return created.UTC().Format("2006-01-02T15:04:05Z")
}
