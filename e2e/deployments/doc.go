// Package deployments holds the files in ../../deployments to what the services are: nobody can start them all here,
// but a service that is missing, keys of another, or a platform file that is refused can be found. Consul and Vault are
// started, with the configuration, arguments and health checks of compose/stores.yaml, and opened by the commands of README.md.
package deployments
