package build

import (
	"context"

	"github.com/moby/buildkit/session/auth"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"towpath.dev/pkg/registry"
)

// logins answers BuildKit when it asks how to open the registry of a base image: with what the platform's
// keychain has for that host. What runs in a build has no way to ask.
type logins struct {
	auth.UnimplementedAuthServer
	keychain keychain
}

// keychain finds the credentials of a repository; *registry.Client does.
type keychain interface {
	Credentials(ctx context.Context, r registry.Repository) (username, password string, err error)
}

// Register puts the answers into a session with BuildKit.
func (l *logins) Register(server *grpc.Server) { auth.RegisterAuthServer(server, l) }

// dockerHub is where Docker Hub's images are; its credentials are kept under its index.
const dockerHub, dockerIndex = "registry-1.docker.io", "index.docker.io"

// Credentials answers for one host; empty credentials mean that it is asked without any.
func (l *logins) Credentials(ctx context.Context, request *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	host := request.Host
	if host == dockerHub {
		host = dockerIndex
	}
	repository, err := registry.ParseRepository(host + "/base")
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	username, password, err := l.keychain.Credentials(ctx, repository)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &auth.CredentialsResponse{Username: username, Secret: password}, nil
}
