// Package e2e carries apps to production as people do: with git and the towpath program, against a real Docker
// Engine. Each scenario in scenarios/ runs in both shapes: everything in one process, and one process for each
// service with a real nats-server and a real registry.
package e2e
