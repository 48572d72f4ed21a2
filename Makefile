TARGETS = install demo serve test check coverage bench live oracle sdk-newest compat soak lock

.PHONY: $(TARGETS)
$(TARGETS):
	@scripts/$@ $(ARGS)
