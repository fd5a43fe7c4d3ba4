package vet

import (
	"regexp"
	"strings"

	"towpath.dev/pkg/policy"
)

// aliases are names that packages use and the SPDX list does not have, in lower case. Debian's are those
// of its copyright format 1.0 and of /usr/share/common-licenses.
var aliases = map[string]string{
	"expat":                           "MIT",
	"mit/x11":                         "MIT",
	"mit/expat":                       "MIT",
	"x11/mit":                         "MIT",
	"the mit license":                 "MIT",
	"mit license":                     "MIT",
	"apache":                          "Apache-2.0",
	"apache 2":                        "Apache-2.0",
	"apache 2.0":                      "Apache-2.0",
	"apache license 2.0":              "Apache-2.0",
	"apache license, version 2.0":     "Apache-2.0",
	"the apache license, version 2.0": "Apache-2.0",
	"the apache software license, version 2.0": "Apache-2.0",
	"apache-2":           "Apache-2.0",
	"asl 2.0":            "Apache-2.0",
	"bsd":                "BSD-3-Clause",
	"new bsd":            "BSD-3-Clause",
	"bsd license":        "BSD-3-Clause",
	"the bsd license":    "BSD-3-Clause",
	"simplified bsd":     "BSD-2-Clause",
	"gpl":                "GPL-1.0-or-later",
	"lgpl":               "LGPL-2.0-or-later",
	"agpl":               "AGPL-3.0-only",
	"gfdl":               "GFDL-1.1-or-later",
	"artistic":           "Artistic-1.0-Perl",
	"artistic-1":         "Artistic-1.0-Perl",
	"artistic-2":         "Artistic-2.0",
	"perl":               "Artistic-1.0-Perl OR GPL-1.0-or-later",
	"mpl-1":              "MPL-1.0",
	"mpl-2":              "MPL-2.0",
	"psf":                "PSF-2.0",
	"psf-2":              "PSF-2.0",
	"python":             "PSF-2.0",
	"cc0":                "CC0-1.0",
	"epl-1":              "EPL-1.0",
	"epl-2":              "EPL-2.0",
	"cddl":               "CDDL-1.0",
	"bsl-1":              "BSL-1.0",
	"boost":              "BSL-1.0",
	"openssl license":    "OpenSSL",
	"pd":                 publicDomain,
	"public domain":      publicDomain,
	"pd-debian":          publicDomain,
	"probably-pd":        publicDomain,
	"sdbm-public-domain": publicDomain,
	"unlicence":          "Unlicense",
	"wtfpl-2":            "WTFPL",
	"gfdl-niv":           "GFDL-1.1-no-invariants-or-later",
}

// publicDomain is no licence, and the SPDX list has no id for it.
const publicDomain = "LicenseRef-public-domain"

var (
	// gnuName is Debian's way to name GNU licences: "GPL-2+", "LGPL-2.1", "GFDL-NIV-1.3+".
	gnuName  = regexp.MustCompile(`^(a|l)?gpl-?v?([123](?:\.\d)?)(\.0)?(\+|-or-later|-only)?$`)
	gfdlName = regexp.MustCompile(`^gfdl-(niv-)?(1\.[123])(\+|-or-later)?(-no-?invariants?)?$`)
	// bsdName is a BSD licence with words of the copyright holder's own: "BSD-3-clause-Cambridge".
	bsdName = regexp.MustCompile(`^bsd-([234])-clause(-.+)?$`)
	// withException is what adds permissions to a licence: without it the licence is the stricter.
	withException = regexp.MustCompile(`(?i)[- ]+with[- ].*exceptions?.*$`)
)

// normalise returns the SPDX expression of a licence as a package names it; false where there is none.
func normalise(name string) (expression string, known bool) {
	name = strings.Trim(strings.TrimSpace(name), ",;.")
	if name == "" || strings.EqualFold(name, "NOASSERTION") || strings.EqualFold(name, "NONE") {
		return "", false
	}
	if id, ok := policy.CanonicalLicence(name); ok {
		return id, true
	}
	lower := strings.ToLower(withException.ReplaceAllString(name, ""))
	if id, ok := aliases[lower]; ok {
		return id, true
	}
	if id, ok := gnu(lower); ok {
		return id, true
	}
	if m := bsdName.FindStringSubmatch(lower); m != nil {
		return "BSD-" + m[1] + "-Clause", true
	}
	if strings.HasPrefix(lower, "public-domain") {
		return publicDomain, true
	}
	return "", false
}

// gnu reads the names that Debian gives GNU licences.
func gnu(lower string) (id string, ok bool) {
	orLater := func(suffix string) string {
		if suffix == "+" || suffix == "-or-later" {
			return "-or-later"
		}
		return "-only"
	}
	if m := gnuName.FindStringSubmatch(lower); m != nil {
		version := m[2]
		if !strings.Contains(version, ".") {
			version += ".0"
		}
		return policy.CanonicalLicence(strings.ToUpper(m[1]) + "GPL-" + version + orLater(m[4]))
	}
	if m := gfdlName.FindStringSubmatch(lower); m != nil {
		invariants := ""
		if m[1] != "" || m[4] != "" {
			invariants = "-no-invariants"
		}
		return policy.CanonicalLicence("GFDL-" + m[2] + invariants + orLater(m[3]))
	}
	return "", false
}
