# make deny: licenses, sources and bans of every dependency. Included by the Makefile.

.PHONY: deny
deny: ## Check licenses, sources and bans of dependencies
	@.ci/deny
