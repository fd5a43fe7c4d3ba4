// Package deployments holds the files in ../../deployments to what the services are: nobody can start them all here,
// but a service that is missing, keys of another, or a platform file that is refused can be found.
package deployments
