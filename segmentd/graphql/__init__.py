"""The GraphQL read API: no Trio, no HTTP. `engine.GraphQLEngine` is the way in."""
