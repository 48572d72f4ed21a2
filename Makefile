TARGETS = install demo serve test check docs coverage simulate soak bench live oracle sdk-newest compat lock

.PHONY: $(TARGETS)
$(TARGETS):
	@scripts/$@ $(ARGS)
