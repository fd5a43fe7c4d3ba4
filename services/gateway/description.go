package gateway

import _ "embed"

// description is the API as OpenAPI 3.1. A test holds it to routes.
//
//go:embed openapi.json
var description []byte

func doDescription(c *call) error {
	c.w.Header().Set("Content-Type", "application/json")
	c.w.Header().Set("Cache-Control", "max-age=300")
	_, err := c.w.Write(description)
	return err
}
