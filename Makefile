TARGETS = install demo serve test check coverage bench live oracle sdk-newest compat lock

.PHONY: $(TARGETS)
$(TARGETS):
	@scripts/$@ $(ARGS)
